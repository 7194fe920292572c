//! No content of `/proc`, of a datagram of proc events or of a run's folder makes a parser panic or loop: random bytes, and real
//! content damaged at random. ci/fuzz.sh does the same for longer, and with an eye on the branches taken.
#![expect(clippy::unwrap_used, reason = "functions of a test are tests too")]

use headcount_sys::events::{self, Event};
use headcount_sys::proc::{self, Stat, Status, mountinfo, net};
use headcount_sys::state::{Record, RunId};
use headcount_sys::{Pid, ProcessId};
use proptest::prelude::*;

const FILES: &[&str] =
    &["stat", "status", "environ", "cmdline", "cgroup", "mountinfo", "net/tcp", "net/unix"];

/// A netlink header, a connector's, and a proc event's up to its union, with four bytes of that: no event takes less.
const LEAST_EVENT: usize = 16 + 20 + 16 + 4;

/// Each parser's results are counted: none has more of them than its input has bytes for, so none works longer than it reads.
fn parse_as_everything(content: &[u8]) {
    let lines = content.split(|byte| *byte == b'\n').count();
    drop(Stat::parse(content));
    drop(Status::parse(content));
    assert!(mountinfo::parse(content).len() <= lines);
    let _ = proc::cgroup_path(content);
    let strings = proc::strings(content).count();
    assert!(strings <= content.len());
    assert!(proc::variables(content).count() <= strings);
    assert!(proc::pids(content).count() <= content.len().div_ceil(2));
    for protocol in [net::Protocol::Tcp, net::Protocol::Udp, net::Protocol::Unix] {
        assert!(net::listeners(content, protocol).count() < lines);
    }
    assert!(events::parse(content).count() <= content.len() / LEAST_EVENT);
    if let Ok(record) = Record::parse(content) {
        assert!(RunId::parse(record.run_id.as_str().as_bytes()).is_some());
    }
    if let Some(run) = RunId::innermost(content) {
        assert!(run.is_in(content));
    }
    assert!(RunId::parse(content).is_none_or(|run| run.as_str().as_bytes() == content));
}

/// Sets bytes at random places, and cuts the end off.
fn damage(content: &mut Vec<u8>, places: Vec<(prop::sample::Index, u8)>, cut: prop::sample::Index) {
    if !content.is_empty() {
        for (place, byte) in places {
            let place = place.index(content.len());
            content[place] = byte;
        }
        content.truncate(cut.index(content.len() + 1));
    }
}

fn run() -> RunId {
    RunId::parse(b"00112233445566778899aabbccddeeff").unwrap()
}

fn record() -> Vec<u8> {
    let record = Record {
        schema: headcount_sys::state::SCHEMA.into(),
        run_id: run(),
        host: ProcessId::this().unwrap(),
        cgroup: Some("/sys/fs/cgroup/headcount".into()),
        program: "sh".into(),
        tiers: vec!["token".into()],
        init: None,
    };
    serde_json::to_vec(&record).unwrap()
}

/// Messages as the kernel sends them: of what kind, and the numbers in the union.
fn datagram(messages: &[(u32, [u32; 6])]) -> Vec<u8> {
    let words = messages.iter().flat_map(|(what, data)| {
        let length = u32::try_from((13 + data.len()) * 4).unwrap();
        // nlmsghdr, cn_msg and proc_event.
        [length, 3, 0, 0, 1, 1, 0, 0, 40, *what, 0, 0, 0].into_iter().chain(*data)
    });
    words.flat_map(u32::to_ne_bytes).collect()
}

const KINDS: [u32; 6] = [0, 1, 2, 4, 0x200, 0x8000_0000];

fn messages() -> impl Strategy<Value = Vec<(u32, [u32; 6])>> {
    proptest::collection::vec((proptest::sample::select(&KINDS[..]), any::<[u32; 6]>()), 0..8)
}

proptest! {
    #[test]
    fn random_bytes_are_survived(content in proptest::collection::vec(any::<u8>(), 0..512)) {
        parse_as_everything(&content);
    }

    #[test]
    fn damaged_files_are_survived(
        file in proptest::sample::select(FILES),
        places in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut content = proc::read(std::path::Path::new(&format!("/proc/self/{file}"))).unwrap_or_default();
        damage(&mut content, places, cut);
        parse_as_everything(&content);
    }

    #[test]
    fn damaged_events_are_survived_and_those_before_the_damage_are_read(
        messages in messages(),
        places in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let whole = datagram(&messages);
        let mut content = whole.clone();
        damage(&mut content, places, cut);
        parse_as_everything(&content);
        let sound = content.iter().zip(&whole).take_while(|(now, before)| now == before).count();
        let length = datagram(&[(0, [0; 6])]).len();
        let before: Vec<Event> = events::parse(&whole[..sound / length * length]).collect();
        let read: Vec<Event> = events::parse(&content).take(before.len()).collect();
        prop_assert_eq!(read, before);
    }

    #[test]
    fn a_datagram_has_at_most_one_event_for_each_message(messages in messages()) {
        let one = events::parse(&datagram(&messages)).count();
        prop_assert!(one <= messages.len());
        // Twice the input is twice the events.
        prop_assert_eq!(events::parse(&datagram(&messages.repeat(2))).count(), 2 * one);
    }

    #[test]
    fn lengths_that_lie_do_not_make_the_events_endless(
        mut messages in proptest::collection::vec(any::<(u32, [u32; 15])>(), 0..64),
        // What does not get on, what ends within a header, what ends in the next message, and the highest number.
        lengths in proptest::collection::vec(
            prop_oneof![Just(0), 0u32..96, (0u32..24).prop_map(|words| words * 4), (u32::MAX - 4)..=u32::MAX],
            64,
        ),
    ) {
        for (message, length) in messages.iter_mut().zip(&lengths) {
            message.0 = *length;
            // As if each were an event of its own.
            message.1[3..5].copy_from_slice(&[1, 1]);
            message.1[8] = 2;
        }
        let content: Vec<u8> = messages
            .iter()
            .flat_map(|(length, rest)| [*length].into_iter().chain(*rest))
            .flat_map(u32::to_ne_bytes)
            .collect();
        parse_as_everything(&content);
    }

    #[test]
    fn damaged_records_are_survived(
        places in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut content = record();
        damage(&mut content, places, cut);
        parse_as_everything(&content);
        // A record that is not whole is none.
        prop_assert!(content.len() == record().len() || Record::parse(&content).is_err());
    }

    #[test]
    fn only_32_digits_are_a_run(text in "[0-9a-f]{31,33}|[0-9a-f]{31}[0-9a-gA-F,]") {
        let is_run = text.len() == 32 && text.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c));
        prop_assert_eq!(RunId::parse(text.as_bytes()).is_some(), is_run);
    }

    #[test]
    fn whatever_a_run_is_nested_in_it_is_the_innermost(outer in "[^\0]{0,80}") {
        let token = run().token(Some(outer.into())).into_encoded_bytes();
        prop_assert!(run().is_in(&token));
        prop_assert_eq!(RunId::innermost(&token), Some(run()));
    }
}

#[test]
fn deeply_nested_records_are_refused() {
    // By the depth that serde_json allows, or the stack would overflow, which is no panic.
    for deep in ["[".repeat(1 << 20), "{\"host\":".repeat(1 << 17)] {
        assert!(Record::parse(deep.as_bytes()).is_err());
    }
}

#[test]
fn real_files_are_understood() {
    let own = Pid::this();
    assert_eq!(proc::stat(own).unwrap().pid, own);
    assert!(proc::status(own).is_ok());
    assert!(proc::mounts().unwrap().iter().any(|mount| mount.kind == b"proc"));
    assert!(Record::parse(&record()).is_ok());
    let forked = datagram(&[(1, [7, 7, 9, 9, 0, 0])]);
    let expected = Event::Fork { parent: Pid::new(7).unwrap(), child: Pid::new(9).unwrap() };
    assert_eq!(events::parse(&forked).collect::<Vec<_>>(), [expected]);
}
