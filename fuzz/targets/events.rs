//! Any bytes as a datagram of proc events: the parser comes to an end, within one step per header's length.
#![no_main]

use headcount_sys::events::{self, Event};
use libfuzzer_sys::fuzz_target;

/// `struct nlmsghdr`, `struct cn_msg`, and `struct proc_event` up to its union with four bytes of it.
const LEAST: usize = 16 + 20 + 16 + 4;

fuzz_target!(|datagram: &[u8]| {
    let found: Vec<Event> = events::parse(datagram).collect();
    assert!(found.len() <= datagram.len() / LEAST);
    // What is behind the last message is none: a cut header, or a length that is too long or too short.
    let aligned = datagram.len().next_multiple_of(4);
    let mut padded = datagram.to_vec();
    padded.resize(aligned, 0);
    padded.extend([0; 16]);
    assert!(events::parse(&padded).count() >= found.len());
    // A message is read or passed over as a whole, so a cut datagram gives the first of the events.
    for length in [datagram.len() / 2, datagram.len().saturating_sub(1)] {
        let cut: Vec<Event> = events::parse(&datagram[..length]).collect();
        assert_eq!(cut, found[..cut.len()]);
    }
});
