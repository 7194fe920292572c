//! Who started whom: the tree of a command's processes, grown from the kernel's record of births, also where parents are gone.
//!
//! **Guarantees:** each link of a [`Chain`] is a fork that the kernel told of. Where one may be missing, the chain says that it
//! is not complete.
//! **Cannot tell:** a process's arguments are read when it executes a program; one that is gone by then has none known. They are
//! read by number, and never acted on.
//!
//! Pure but for the reading of arguments, which is the caller's.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use headcount_sys::Pid;
use headcount_sys::events::Event;

/// The most processes that are remembered. What lives is always among them, with the ancestors nearest to it and to the command.
const MEMORY: usize = 100_000;
/// How many generations below the command are kept when memory is short.
const KEPT_DEPTH: u32 = 32;

/// Arguments, shared by a process and those that it forked before they executed something else.
type Argv = Option<Rc<[Vec<u8>]>>;

/// One ancestor of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number when it lived.
    pub pid: Pid,
    /// Its arguments, if they could be read while it lived.
    pub argv: Option<Vec<Vec<u8>>>,
    /// Whether it lives.
    pub is_alive: bool,
}

/// The ancestors of a process: its parent at birth first, the command last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// The ancestors.
    pub links: Vec<Link>,
    /// Whether none is missing between them.
    pub is_complete: bool,
}

/// A process that was started in the scope.
#[derive(Debug)]
struct Node {
    pid: Pid,
    parent: Option<u64>,
    argv: Argv,
    threads: u32,
    /// Nodes whose parent this is.
    children: u32,
    /// How far below the command.
    depth: u32,
    /// Whether ancestors between this and its parent were forgotten.
    is_cut: bool,
}

/// The tree below one process, the gate.
#[derive(Debug)]
pub struct Lineage {
    root: Pid,
    nodes: BTreeMap<u64, Node>,
    /// The node that has this number now, or had it last.
    current: HashMap<Pid, u64>,
    next: u64,
    forks: u64,
    is_lossy: bool,
    /// The most that is remembered unless more lives.
    least_memory: usize,
    memory: usize,
}

impl Lineage {
    /// An empty tree: what `root` starts from now on, and what that starts.
    #[must_use]
    pub fn below(root: Pid) -> Self {
        Self {
            root,
            nodes: BTreeMap::new(),
            current: HashMap::new(),
            next: 0,
            forks: 0,
            is_lossy: false,
            least_memory: MEMORY,
            memory: MEMORY,
        }
    }

    /// The same tree, with at most so many processes in it as long as few of them live. For tests: the usual bound takes a
    /// hundred thousand births to reach.
    #[must_use]
    pub fn remembering(self, most: usize) -> Self {
        Self { least_memory: most, memory: most, ..self }
    }

    /// How many processes are remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.nodes.len()
    }

    /// Takes note of an event. `arguments` reads those of a process that just executed a program.
    pub fn note(&mut self, event: Event, arguments: impl FnOnce(Pid) -> Option<Vec<Vec<u8>>>) {
        match event {
            Event::Fork { parent, child } => self.born(parent, child),
            Event::Thread { process } => {
                if let Some(node) = self.node_mut(process) {
                    node.threads = node.threads.saturating_add(1);
                }
            }
            Event::Exec { process } => {
                if let Some(node) = self.node_mut(process) {
                    node.argv = arguments(process).map(Rc::from);
                }
            }
            Event::Exit { process } => {
                if let Some(node) = self.node_mut(process) {
                    node.threads = node.threads.saturating_sub(1);
                    if node.threads == 0
                        && let Some(id) = self.current.get(&process).copied()
                    {
                        self.prune(id);
                    }
                }
            }
            Event::Answer(_) => {}
        }
    }

    /// Forgets a process that the root started for itself.
    pub fn disown(&mut self, pid: Pid) {
        if let Some(id) = self.current.remove(&pid)
            && self.nodes.remove(&id).is_some()
        {
            self.forks -= 1;
        }
    }

    /// Takes note that events were lost: from here on, no chain is known to be complete.
    pub fn note_loss(&mut self) {
        self.is_lossy = true;
    }

    /// Whether events were lost.
    #[must_use]
    pub fn is_lossy(&self) -> bool {
        self.is_lossy
    }

    /// How many processes were started; `None` if that is not known exactly.
    #[must_use]
    pub fn forks(&self) -> Option<u64> {
        (!self.is_lossy).then_some(self.forks)
    }

    /// The ancestors of the process that has this number, or had it last; `None` if it is not known to be of this tree.
    #[must_use]
    pub fn chain(&self, pid: Pid) -> Option<Chain> {
        let node = self.nodes.get(self.current.get(&pid)?)?;
        let mut chain = Chain { links: Vec::new(), is_complete: !self.is_lossy };
        let mut below = node;
        while let Some(node) = below.parent.and_then(|id| self.nodes.get(&id)) {
            chain.is_complete &= !below.is_cut;
            chain.links.push(Link {
                pid: node.pid,
                argv: node.argv.as_ref().map(|argv| argv.to_vec()),
                is_alive: node.threads > 0,
            });
            below = node;
        }
        Some(chain)
    }

    fn node_mut(&mut self, pid: Pid) -> Option<&mut Node> {
        self.nodes.get_mut(self.current.get(&pid)?)
    }

    fn born(&mut self, parent: Pid, child: Pid) {
        let above = self.current.get(&parent).copied().filter(|id| self.nodes.contains_key(id));
        let before = self.current.remove(&child);
        if above.is_some() || parent == self.root {
            self.insert(above, child);
        }
        // A number is given again only when its process is gone: if that is news, the event was lost.
        if let Some(id) = before
            && let Some(node) = self.nodes.get_mut(&id)
        {
            node.threads = 0;
            self.prune(id);
        }
        if self.nodes.len() > self.memory {
            self.thin();
        }
    }

    fn insert(&mut self, above: Option<u64>, child: Pid) {
        let (argv, depth) = match above.and_then(|id| self.nodes.get_mut(&id)) {
            Some(node) => {
                node.children = node.children.saturating_add(1);
                (node.argv.clone(), node.depth.saturating_add(1))
            }
            None => (None, 0),
        };
        let id = self.next;
        self.next += 1;
        self.forks += 1;
        self.nodes.insert(
            id,
            Node { pid: child, parent: above, argv, threads: 1, children: 0, depth, is_cut: false },
        );
        self.current.insert(child, id);
    }

    /// Forgets a process that is dead and below which nothing is left; and so on upwards.
    fn prune(&mut self, mut id: u64) {
        while let Some(node) = self.nodes.get(&id).filter(|node| node.threads == 0 && node.children == 0) {
            let (pid, parent) = (node.pid, node.parent);
            self.nodes.remove(&id);
            if self.current.get(&pid) == Some(&id) {
                self.current.remove(&pid);
            }
            let Some(above) = parent.and_then(|parent| Some((parent, self.nodes.get_mut(&parent)?))) else {
                return;
            };
            above.1.children = above.1.children.saturating_sub(1);
            id = above.0;
        }
    }

    /// Makes room: forgets the dead in the middle of long chains. What a process re-forks without pause is one dead ancestor
    /// after the other.
    fn thin(&mut self) {
        let middle: Vec<u64> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.threads == 0 && node.depth > KEPT_DEPTH)
            .map(|(id, _)| *id)
            .collect();
        // Whoever is nearest to the living stays: the youngest have the highest numbers. How many does not depend on how many
        // it was last time, or each time would allow for more.
        let kept = self.least_memory / 2;
        let forgotten = middle.get(..middle.len().saturating_sub(kept)).unwrap_or_default();
        let forgotten: std::collections::BTreeSet<u64> = forgotten.iter().copied().collect();
        let mut gone: BTreeMap<u64, Option<u64>> = BTreeMap::new();
        for id in &forgotten {
            if let Some(node) = self.nodes.remove(id) {
                if self.current.get(&node.pid) == Some(id) {
                    self.current.remove(&node.pid);
                }
                // Parents have lower numbers than children, so a forgotten parent's own parent is known by now.
                let above = node.parent.map(|parent| gone.get(&parent).copied().unwrap_or(Some(parent)));
                gone.insert(*id, above.flatten());
            }
        }
        for node in self.nodes.values_mut() {
            node.children = 0;
            if let Some(above) = node.parent.and_then(|parent| gone.get(&parent)) {
                node.parent = *above;
                node.is_cut = true;
            }
        }
        let parents: Vec<u64> = self.nodes.values().filter_map(|node| node.parent).collect();
        for parent in parents {
            if let Some(node) = self.nodes.get_mut(&parent) {
                node.children += 1;
            }
        }
        // If everything lives, there is nothing to forget; then memory grows with what lives.
        self.memory = self.least_memory.max(self.nodes.len().saturating_mul(2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid(number: i32) -> Pid {
        Pid::new(number).unwrap()
    }

    fn fork(parent: i32, child: i32) -> Event {
        Event::Fork { parent: pid(parent), child: pid(child) }
    }

    /// A tree below process 1, after these events; `argv` of process N is `N`.
    fn grown(events: &[Event]) -> Lineage {
        let mut lineage = Lineage::below(pid(1));
        for event in events {
            lineage.note(*event, |pid| Some(vec![pid.to_string().into_bytes()]));
        }
        lineage
    }

    fn shown(lineage: &Lineage, of: i32) -> Option<String> {
        let chain = lineage.chain(pid(of))?;
        let links = chain.links.iter().map(|link| {
            let argv =
                link.argv.as_ref().map_or("?".into(), |argv| String::from_utf8(argv.concat()).unwrap());
            format!("{}={argv}{}", link.pid, if link.is_alive { "" } else { "†" })
        });
        Some(links.collect::<Vec<_>>().join(" ") + if chain.is_complete { "" } else { " …" })
    }

    fn exec(process: i32) -> Event {
        Event::Exec { process: pid(process) }
    }

    fn exit(process: i32) -> Event {
        Event::Exit { process: pid(process) }
    }

    #[test]
    fn dead_ancestors_are_remembered_with_what_they_ran() {
        let lineage =
            grown(&[fork(1, 10), exec(10), fork(10, 11), exec(11), fork(11, 12), exit(11), exit(10)]);
        assert_eq!(shown(&lineage, 12).unwrap(), "11=11† 10=10†");
        assert_eq!(lineage.forks(), Some(3));
    }

    #[test]
    fn a_fork_has_its_parents_arguments_until_it_executes_something() {
        let lineage = grown(&[fork(1, 10), exec(10), fork(10, 11), fork(11, 12), exec(11), fork(11, 13)]);
        assert_eq!(shown(&lineage, 12).unwrap(), "11=11 10=10");
        assert_eq!(shown(&lineage, 11).unwrap(), "10=10");
        let before = grown(&[fork(1, 10), exec(10), fork(10, 11), fork(11, 12)]);
        assert_eq!(shown(&before, 12).unwrap(), "11=10 10=10");
    }

    #[test]
    fn strangers_are_not_of_the_tree() {
        let lineage = grown(&[fork(1, 10), fork(2, 20), fork(20, 21)]);
        assert!(lineage.chain(pid(20)).is_none() && lineage.chain(pid(21)).is_none());
        assert_eq!(lineage.forks(), Some(1));
    }

    #[test]
    fn a_number_that_changed_hands_means_the_new_process() {
        // 11 is dead below 10, and its child 12 lives on; then a stranger gets the number.
        let lineage = grown(&[fork(1, 10), exec(10), fork(10, 11), fork(11, 12), exit(11), fork(2, 11)]);
        assert!(lineage.chain(pid(11)).is_none());
        assert_eq!(shown(&lineage, 12).unwrap(), "11=10† 10=10");
        let again = grown(&[fork(1, 10), exec(10), fork(10, 11), fork(11, 12), exit(11), fork(12, 11)]);
        assert_eq!(shown(&again, 11).unwrap(), "12=10 11=10† 10=10");
    }

    #[test]
    fn a_process_ends_with_its_last_thread() {
        let lineage = grown(&[fork(1, 10), Event::Thread { process: pid(10) }, exit(10), fork(10, 11)]);
        assert_eq!(shown(&lineage, 11).unwrap(), "10=?");
    }

    #[test]
    fn what_has_come_and_gone_takes_no_memory() {
        let mut events = vec![fork(1, 10)];
        for child in 100..20_100 {
            events.extend([fork(10, child), exec(child), fork(child, 50_000), exit(50_000), exit(child)]);
        }
        let lineage = grown(&events);
        assert_eq!(lineage.nodes.len(), 1);
        assert_eq!(lineage.current.len(), 1);
        assert_eq!(lineage.forks(), Some(40_001));
    }

    #[test]
    fn a_chain_without_end_is_cut_in_its_middle_and_says_so() {
        let mut lineage = Lineage::below(pid(1)).remembering(1_000);
        let mut events = vec![fork(1, 10)];
        for generation in 10..3_010 {
            events.extend([fork(generation, generation + 1), exit(generation)]);
        }
        for event in events {
            lineage.note(event, |_| None);
        }
        assert!(lineage.nodes.len() <= 1_001, "{}", lineage.nodes.len());
        let chain = lineage.chain(pid(3_010)).unwrap();
        assert!(!chain.is_complete);
        assert_eq!(chain.links.first().map(|link| link.pid), Some(pid(3_009)));
        assert_eq!(chain.links.last().map(|link| link.pid), Some(pid(10)));
    }

    #[test]
    fn what_is_remembered_does_not_grow_with_what_was_born() {
        // Found by the fuzzer: each time that room was made, the bound grew by what lives and its nearest ancestors.
        let mut lineage = Lineage::below(pid(1)).remembering(100);
        lineage.note(fork(1, 10), |_| None);
        for generation in 10..3_010 {
            lineage.note(fork(generation, generation + 1), |_| None);
            lineage.note(exit(generation), |_| None);
        }
        // One lives, below 33 generations that are always kept; and as many again before room is made.
        assert!(lineage.remembered() <= 100 + 2 * 34 + 1, "{}", lineage.remembered());
    }

    #[test]
    fn a_process_whose_end_was_lost_is_dead_when_its_number_is_given_again() {
        // Found by the fuzzer: it was called alive, and never forgotten.
        let parent = [fork(1, 10), fork(10, 11), fork(11, 12)];
        for given_again in [fork(12, 11), fork(2, 11)] {
            let lineage = grown(&[&parent[..], &[given_again]].concat());
            assert_eq!(shown(&lineage, 12).unwrap(), "11=?† 10=?");
        }
        let forgotten = grown(&[&parent[..], &[fork(2, 12), exit(11)]].concat());
        assert_eq!(forgotten.remembered(), 1);
    }

    #[test]
    fn after_a_loss_nothing_is_called_complete() {
        let mut lineage = grown(&[fork(1, 10), fork(10, 11)]);
        lineage.note_loss();
        assert_eq!(shown(&lineage, 11).unwrap(), "10=? …");
        assert_eq!(lineage.forks(), None);
    }
}
