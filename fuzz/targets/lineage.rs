//! Any sequence of births, executions and ends, held against a model that forgets nothing but what is dead and has nothing below
//! it; and, with little memory, any sequence that a kernel can tell of: chains end, their links are right, a gap is said, and what is
//! remembered is bounded by what lives.
#![no_main]

use headcount::provenance::{Chain, Lineage};
use headcount_sys::Pid;
use headcount_sys::events::Event;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Step {
    Fork {
        parent: u8,
        child: u8,
    },
    Thread(u8),
    Exec {
        process: u8,
        is_read: bool,
    },
    Exit(u8),
    /// Forks, and ends, and so on with the child.
    Reforks {
        process: u8,
        generations: u8,
    },
    Disown(u8),
    Loss,
    Answer(u32),
}

#[derive(Arbitrary, Debug)]
struct Given {
    memory: Option<u8>,
    steps: Vec<Step>,
}

const ROOT: u8 = 0;
/// So few process numbers that they are often given again.
const NUMBERS: u8 = 48;
/// Steps of one input, so that each takes microseconds; enough to make room several times.
const STEPS: u32 = 512;
/// Generations of which the dead are always kept (`KEPT_DEPTH`, and the command itself), and the living below them.
const KEPT: usize = 34;

fn pid(number: u8) -> Pid {
    Pid::new(i32::from(number) + 1).unwrap()
}

impl Step {
    fn with_few_numbers(self) -> Self {
        let few = |number: u8| number % NUMBERS;
        match self {
            Self::Fork { parent, child } => Self::Fork { parent: few(parent), child: few(child) },
            Self::Thread(number) => Self::Thread(few(number)),
            Self::Exec { process, is_read } => Self::Exec { process: few(process), is_read },
            Self::Exit(number) => Self::Exit(few(number)),
            Self::Reforks { process, generations } => Self::Reforks { process: few(process), generations },
            Self::Disown(number) => Self::Disown(few(number)),
            other => other,
        }
    }
}

struct Node {
    number: u8,
    parent: Option<usize>,
    argv: Option<Vec<Vec<u8>>>,
    threads: u32,
    children: usize,
}

struct Model {
    nodes: Vec<Node>,
    current: [Option<usize>; NUMBERS as usize],
    forks: u64,
    is_lossy: bool,
    living: usize,
    most_living: usize,
}

impl Model {
    fn node(&mut self, number: u8) -> Option<&mut Node> {
        self.current[usize::from(number)].and_then(|id| self.nodes.get_mut(id))
    }

    fn lives(&self, number: u8) -> bool {
        number == ROOT || self.current[usize::from(number)].is_some_and(|id| self.nodes[id].threads > 0)
    }

    fn fork(&mut self, parent: u8, child: u8) {
        let above = self.current[usize::from(parent)];
        let before = self.current[usize::from(child)].take();
        if above.is_some() || parent == ROOT {
            let argv = above.and_then(|id| self.nodes[id].argv.clone());
            self.current[usize::from(child)] = Some(self.nodes.len());
            self.nodes.push(Node { number: child, parent: above, argv, threads: 1, children: 0 });
            if let Some(above) = above {
                self.nodes[above].children += 1;
            }
            self.forks += 1;
            self.living += 1;
        }
        // A number is given again only when its process is gone, so the news of that was lost.
        if let Some(before) = before {
            self.living -= usize::from(self.nodes[before].threads > 0);
            self.nodes[before].threads = 0;
            self.forget(before);
        }
        self.most_living = self.most_living.max(self.living);
    }

    fn thread(&mut self, process: u8) {
        if let Some(node) = self.node(process) {
            node.threads += 1;
            let is_first = node.threads == 1;
            self.living += usize::from(is_first);
            self.most_living = self.most_living.max(self.living);
        }
    }

    fn exit(&mut self, process: u8) {
        let Some(node) = self.node(process) else { return };
        let was_last = node.threads == 1;
        node.threads = node.threads.saturating_sub(1);
        if node.threads == 0 {
            self.living -= usize::from(was_last);
            self.forget(self.current[usize::from(process)].unwrap());
        }
    }

    fn forget(&mut self, mut id: usize) {
        while self.nodes[id].threads == 0 && self.nodes[id].children == 0 {
            let place = &mut self.current[usize::from(self.nodes[id].number)];
            if *place == Some(id) {
                *place = None;
            }
            let Some(above) = self.nodes[id].parent else { return };
            self.nodes[above].children -= 1;
            id = above;
        }
    }

    /// Whether the root started it, and it started nothing: what the gate itself started.
    fn is_the_roots(&mut self, number: u8) -> bool {
        self.node(number).is_some_and(|node| node.parent.is_none() && node.children == 0)
    }

    fn disown(&mut self, number: u8) {
        if let Some(id) = self.current[usize::from(number)].take() {
            self.living -= usize::from(self.nodes[id].threads > 0);
            self.forks -= 1;
        }
    }

    /// Checks a chain; whether none of its links is missing.
    fn check(&self, number: u8, chain: &Chain) -> bool {
        let mut id = self.current[usize::from(number)].and_then(|id| self.nodes[id].parent);
        let mut is_whole = true;
        let mut links = chain.links.iter().peekable();
        while let Some(at) = id {
            let node = &self.nodes[at];
            let is_here = links.next_if(|link| {
                link.pid == pid(node.number) && link.argv == node.argv && link.is_alive == (node.threads > 0)
            });
            is_whole &= is_here.is_some();
            id = node.parent;
        }
        assert!(links.next().is_none(), "{:?} of {number} are not its ancestors", chain.links);
        is_whole
    }
}

fuzz_target!(|given: Given| {
    let mut lineage = Lineage::below(pid(ROOT));
    // Less would be less than what is always kept.
    let memory = given.memory.map(|memory| usize::from(memory % 64) + 1);
    if let Some(memory) = memory {
        lineage = lineage.remembering(memory);
    }
    let mut model = Model {
        nodes: Vec::new(),
        current: [None; NUMBERS as usize],
        forks: 0,
        is_lossy: false,
        living: 0,
        most_living: 0,
    };
    let mut pending: Vec<Step> = given.steps.into_iter().rev().map(Step::with_few_numbers).collect();
    let mut count = 0_u32;
    while let Some(step) = pending.pop() {
        count += 1;
        if count > STEPS {
            break;
        }
        // What was forgotten for lack of memory has no part in anything any more; the model does not know what that is.
        let is_possible = |number: u8| memory.is_none() || model.lives(number);
        let event = match step {
            Step::Fork { parent, child }
                if child == ROOT || !is_possible(parent) || (memory.is_some() && model.lives(child)) =>
            {
                continue;
            }
            Step::Thread(number) | Step::Exec { process: number, .. } | Step::Exit(number)
                if !is_possible(number) =>
            {
                continue;
            }
            Step::Fork { parent, child } => {
                model.fork(parent, child);
                Event::Fork { parent: pid(parent), child: pid(child) }
            }
            Step::Thread(process) => {
                model.thread(process);
                Event::Thread { process: pid(process) }
            }
            Step::Exec { process, is_read } => {
                if let Some(node) = model.node(process) {
                    node.argv = is_read.then(|| vec![count.to_ne_bytes().to_vec()]);
                }
                lineage.note(Event::Exec { process: pid(process) }, |of| {
                    assert_eq!(of, pid(process));
                    is_read.then(|| vec![count.to_ne_bytes().to_vec()])
                });
                continue;
            }
            Step::Exit(process) => {
                model.exit(process);
                Event::Exit { process: pid(process) }
            }
            Step::Reforks { process, generations } => {
                let free = (1..NUMBERS).map(|ahead| (process + ahead) % NUMBERS);
                let child = free.into_iter().find(|number| !model.lives(*number));
                if let Some((child, fewer)) = child.zip(generations.checked_sub(1)) {
                    pending.push(Step::Reforks { process: child, generations: fewer });
                    pending.push(Step::Exit(process));
                    pending.push(Step::Fork { parent: process, child });
                }
                continue;
            }
            Step::Disown(number) => {
                if model.is_the_roots(number) {
                    model.disown(number);
                    lineage.disown(pid(number));
                }
                continue;
            }
            Step::Loss => {
                model.is_lossy = true;
                lineage.note_loss();
                continue;
            }
            Step::Answer(number) => Event::Answer(number),
        };
        lineage.note(event, |_| panic!("the arguments were read at {event:?}"));
        let bound = memory.unwrap_or(usize::MAX / 2) + 2 * KEPT * model.most_living + 1;
        assert!(lineage.remembered() <= bound, "{} > {bound}", lineage.remembered());
    }
    assert_eq!(lineage.is_lossy(), model.is_lossy);
    assert_eq!(lineage.forks(), (!model.is_lossy).then_some(model.forks));
    // Of the dead, a quarter each time: their chains are long, and much the same.
    let is_looked_at = |number: u8| model.lives(number) || u32::from(number) % 4 == count % 4;
    for number in (1..NUMBERS).filter(|number| is_looked_at(*number)) {
        let id = model.current[usize::from(number)];
        match (id, lineage.chain(pid(number))) {
            (None, None) => {}
            (None, Some(chain)) => panic!("{number} is not of the tree: {chain:?}"),
            (Some(_), None) => assert!(memory.is_some() && !model.lives(number), "{number} is not known"),
            (Some(_), Some(chain)) => {
                assert!(chain.links.len() <= lineage.remembered());
                let is_whole = model.check(number, &chain);
                assert!(is_whole || memory.is_some(), "{chain:?}");
                assert!(is_whole || !chain.is_complete, "{chain:?}");
                if !model.is_lossy && memory.is_none() {
                    assert!(chain.is_complete);
                }
            }
        }
    }
});
