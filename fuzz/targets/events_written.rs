//! Proc events as the kernel sends them, several in a datagram, from arbitrary values: each is read back, in order.
#![no_main]

use headcount_sys::Pid;
use headcount_sys::events::{self, Event};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Written {
    /// `parent_pid`, `parent_tgid`, `child_pid`, `child_tgid`
    Fork([i32; 4]),
    /// A fork of which the new thread is its own process's first.
    Process {
        parent: i32,
        child: i32,
    },
    /// `process_pid`, `process_tgid`
    Exec([i32; 2]),
    /// And `exit_code`, `exit_signal`, `parent_pid`, `parent_tgid`
    Exit([i32; 2], [u32; 4]),
    Ack(u32),
    /// A kind that headcount does not know.
    Other {
        what: u32,
        data: [u32; 4],
    },
    /// Of another connector.
    Foreign {
        idx: u32,
        val: u32,
    },
}

/// What `struct proc_event` calls its kinds; the bits of unknown ones are 0x4 to 0x40000000.
const UNKNOWN_BITS: u32 = 0x7fff_fffc;

fn message(id: (u32, u32), what: u32, data: &[u32]) -> Vec<u8> {
    // nlmsghdr, cn_msg, and a proc_event whose union has room for six numbers, of which not all are used.
    let mut words = vec![0, 3, 0, 0, id.0, id.1, 7, 0, 40, what, 1, 2, 3];
    words.extend_from_slice(data);
    words.resize(13 + 6, 0);
    words[0] = u32::try_from(words.len() * 4).unwrap();
    words.iter().flat_map(|word: &u32| word.to_ne_bytes()).collect()
}

fn expected(written: &Written) -> Option<Event> {
    match *written {
        Written::Fork([_, parent, thread, child]) => {
            let (parent, _, child) = (Pid::new(parent)?, Pid::new(thread)?, Pid::new(child)?);
            Some(if thread == child.as_raw() {
                Event::Fork { parent, child }
            } else {
                Event::Thread { process: child }
            })
        }
        Written::Process { parent, child } => {
            Some(Event::Fork { parent: Pid::new(parent)?, child: Pid::new(child)? })
        }
        Written::Exec([_, process]) => Some(Event::Exec { process: Pid::new(process)? }),
        Written::Exit([_, process], _) => Some(Event::Exit { process: Pid::new(process)? }),
        Written::Ack(number) => Some(Event::Answer(number)),
        Written::Other { .. } | Written::Foreign { .. } => None,
    }
}

fuzz_target!(|written: Vec<Written>| {
    let unsigned = |numbers: &[i32]| numbers.iter().map(|number| number.cast_unsigned()).collect::<Vec<_>>();
    let mut datagram = Vec::new();
    for one in &written {
        let mut bytes = match one {
            Written::Fork(data) => message((1, 1), 1, &unsigned(data)),
            Written::Process { parent, child } => {
                message((1, 1), 1, &unsigned(&[7, *parent, *child, *child]))
            }
            Written::Exec(data) => message((1, 1), 2, &unsigned(data)),
            Written::Exit(data, more) => {
                message((1, 1), 0x8000_0000, &[unsigned(data), more.to_vec()].concat())
            }
            Written::Ack(number) => message((1, 1), 0, &[*number]),
            Written::Other { what, data } => message((1, 1), (*what & UNKNOWN_BITS) | 4, data),
            // Not both 1.
            Written::Foreign { idx, val } => {
                message((*idx, if *idx == 1 { val | 2 } else { *val }), 1, &[1, 1, 2, 2])
            }
        };
        // A message of any length: the next begins at a multiple of four bytes, and what is between is nothing.
        let more = datagram.len() / 4 % 4;
        let length = u32::try_from(bytes.len() + more).unwrap();
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes.resize(bytes.len() + more.next_multiple_of(4), 0xff);
        datagram.extend(bytes);
    }
    let expected: Vec<Event> = written.iter().filter_map(expected).collect();
    assert_eq!(events::parse(&datagram).collect::<Vec<_>>(), expected);
});
