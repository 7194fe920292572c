//! The kernel's record of births: forks, executions and ends, as *proc events* over netlink (`CONFIG_PROC_EVENTS`).
//!
//! **Guarantees:** an event is in the socket before the system call that caused it returns to user space, so whoever sees a
//! process and then reads all events has its birth, unless [`ProcEvents::read`] says that events were lost. Threads are told from
//! processes.
//! **Cannot see:** what happened before it was opened; what did not fit into the socket's buffer while nobody read. It is
//! provenance, never a verdict.
//!
//! Needs root, or Linux 6.6 or later, and the machine's own (*initial*) network and user namespaces.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use crate::{Error, Pid, Result};

/// `CN_IDX_PROC` and `CN_VAL_PROC` of `linux/connector.h`: the id of these messages, and the multicast group.
const PROC: u32 = 1;
/// `PROC_CN_MCAST_LISTEN` of `linux/cn_proc.h`.
const LISTEN: u32 = 1;
/// `NLMSG_DONE` of `linux/netlink.h`.
const DONE: u16 = 3;
/// `struct nlmsghdr`, then `struct cn_msg`, then `struct proc_event` up to its union.
const NETLINK_HEADER: usize = 16;
const CONNECTOR_HEADER: usize = 20;
const EVENT_HEADER: usize = 16;
/// `enum what` of `struct proc_event`.
const ACK: u32 = 0;
const FORK: u32 = 1;
const EXEC: u32 = 2;
const EXIT: u32 = 0x8000_0000;

/// Room for some ten thousand events; root may exceed the machine's limit for others (`net.core.rmem_max`).
const BUFFER: usize = 16 << 20;
/// The most events that one [`ProcEvents::read`] takes, so that a machine that forks without pause cannot hold its caller.
const READ_LIMIT: usize = 16_384;

/// Something that happened to a process anywhere on the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A process was started.
    Fork {
        /// Its parent: the one that forked it, or with `CLONE_PARENT` that one's parent.
        parent: Pid,
        /// The new process.
        child: Pid,
    },
    /// A process has one more thread.
    Thread {
        /// Of which process.
        process: Pid,
    },
    /// It executes another program.
    Exec {
        /// Which process.
        process: Pid,
    },
    /// One of its threads has ended; with the last one, the process.
    Exit {
        /// Of which process.
        process: Pid,
    },
    /// The kernel answers the request to listen with this error number; 0 is consent.
    Answer(u32),
}

/// The events of one datagram. What is no proc event, or is cut off, is passed over.
pub fn parse(datagram: &[u8]) -> impl Iterator<Item = Event> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        while rest.len() >= NETLINK_HEADER {
            let length = usize::try_from(word(rest, 0)?).ok()?;
            let message = rest.get(..length).filter(|message| message.len() >= NETLINK_HEADER)?;
            // Messages begin at multiples of four bytes.
            rest = rest.get(length.checked_next_multiple_of(4)?..).unwrap_or_default();
            if let Some(event) = event(message) {
                return Some(event);
            }
        }
        None
    })
}

fn event(message: &[u8]) -> Option<Event> {
    let connector = message.get(NETLINK_HEADER..)?;
    if (word(connector, 0)?, word(connector, 4)?) != (PROC, PROC) {
        return None;
    }
    let event = connector.get(CONNECTOR_HEADER..)?;
    let data = event.get(EVENT_HEADER..)?;
    let pid = |at| word(data, at).and_then(|number| i32::try_from(number).ok()).and_then(Pid::new);
    match word(event, 0)? {
        ACK => Some(Event::Answer(word(data, 0)?)),
        FORK => {
            let (parent, thread, child) = (pid(4)?, pid(8)?, pid(12)?);
            Some(if thread == child {
                Event::Fork { parent, child }
            } else {
                Event::Thread { process: child }
            })
        }
        EXEC => Some(Event::Exec { process: pid(4)? }),
        EXIT => Some(Event::Exit { process: pid(4)? }),
        _ => None,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// What came of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// All that had happened was handed over.
    Complete,
    /// There is more: events come faster than they are read, or as many as one call takes.
    More,
    /// Some did not fit into the buffer, and are lost. There may be more to read.
    Lost,
}

/// A subscription to the machine's proc events.
#[derive(Debug)]
pub struct ProcEvents {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl ProcEvents {
    /// Subscribes. From here on nothing is missed, within what the buffer holds.
    ///
    /// # Errors
    /// Where the kernel has no proc events, or does not let this process have them; the message says which.
    pub fn open() -> Result<Self> {
        let failed = |what: &'static str| move |e: rustix::io::Errno| Error::io(what, e);
        let socket = net::socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(netlink::CONNECTOR),
        )
        .map_err(failed("failed to open a socket for proc events"))?;
        if sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER).is_err() {
            // As much as others may have.
            let _ = sockopt::set_socket_recv_buffer_size(&socket, BUFFER);
        }
        pass_only(socket.as_fd(), &[ACK, FORK, EXEC, EXIT])?;
        net::bind(&socket, &SocketAddrNetlink::new(0, PROC))
            .map_err(failed("failed to join the group of proc events"))?;
        let kernel = SocketAddrNetlink::new(0, 0);
        net::sendto(&socket, &request(), SendFlags::empty(), &kernel)
            .map_err(failed("failed to ask for proc events"))?;
        let mut events = Self { socket, buffer: vec![0; 4096] };
        // The kernel answers before `sendto` returns, but other events may be in front of its answer.
        let mut answer = None;
        for _ in 0..READ_LIMIT {
            let Some(length) = events.receive()? else { break };
            let found = events.buffer.get(..length).and_then(|datagram| {
                parse(datagram).find_map(|event| match event {
                    Event::Answer(number) => Some(number),
                    _ => None,
                })
            });
            if found.is_some() {
                answer = found;
                break;
            }
        }
        match answer {
            Some(0) => Ok(events),
            Some(number) => Err(Error::io(
                "the kernel refused proc events",
                std::io::Error::from_raw_os_error(i32::try_from(number).unwrap_or(libc::EPERM)),
            )),
            None => Err(Error::new(
                "the kernel does not answer: no CONFIG_PROC_EVENTS, or a pid or user namespace of its own (a container)",
            )),
        }
    }

    /// Hands over what happened since the last call, without blocking.
    ///
    /// # Errors
    /// Where the socket fails for another reason than an overflow.
    pub fn read(&mut self, mut each: impl FnMut(Event)) -> Result<Reading> {
        let mut reading = Reading::Complete;
        for _ in 0..READ_LIMIT {
            match self.receive() {
                Ok(Some(length)) => {
                    self.buffer.get(..length).into_iter().flat_map(parse).for_each(&mut each);
                }
                Ok(None) => return Ok(reading),
                Err(error) if error.errno() == Some(libc::ENOBUFS) => reading = Reading::Lost,
                Err(error) => return Err(error),
            }
        }
        Ok(if reading == Reading::Lost { reading } else { Reading::More })
    }

    /// The next datagram of the kernel's, and none of another process's.
    fn receive(&mut self) -> Result<Option<usize>> {
        loop {
            match net::recvfrom(&self.socket, self.buffer.as_mut_slice(), RecvFlags::empty()) {
                Ok((length, _, from)) => {
                    let from = from.and_then(|from| SocketAddrNetlink::try_from(from).ok());
                    if from.is_some_and(|from| from.pid() == 0) {
                        return Ok(Some(length));
                    }
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(None),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Error::io("failed to read proc events", error)),
            }
        }
    }
}

impl AsFd for ProcEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The message that asks the kernel to send events.
fn request() -> Vec<u8> {
    let payload = LISTEN.to_ne_bytes();
    let length = NETLINK_HEADER + CONNECTOR_HEADER + payload.len();
    let mut message = Vec::with_capacity(length);
    // nlmsghdr: length, type, flags, sequence, port (the kernel fills in 0 as this process).
    message.extend(u32::try_from(length).unwrap_or_default().to_ne_bytes());
    message.extend(DONE.to_ne_bytes());
    message.extend([0; 10]);
    // cn_msg: idx, val, seq, ack, len, flags.
    message.extend(PROC.to_ne_bytes());
    message.extend(PROC.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(u16::try_from(payload.len()).unwrap_or_default().to_ne_bytes());
    message.extend([0; 2]);
    message.extend(payload);
    message
}

/// Has the kernel drop all but these kinds of events before they reach the socket: others (a session, a name, a tracer) would
/// only wake the reader up.
fn pass_only(socket: BorrowedFd<'_>, kinds: &[u32]) -> Result<()> {
    // Codes and modes of `linux/bpf_common.h`; the byte that a 32-bit load begins with is the highest.
    let step = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap_or_default(),
        jt,
        jf,
        k,
    };
    let at = u32::try_from(NETLINK_HEADER + CONNECTOR_HEADER).unwrap_or_default();
    let mut program = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at)];
    for (place, kind) in kinds.iter().enumerate() {
        // To the accepting return, behind the other comparisons and the refusing one.
        let ahead = u8::try_from(kinds.len() - place).unwrap_or_default();
        let wanted = u32::from_be_bytes(kind.to_ne_bytes());
        program.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, ahead, 0, wanted));
    }
    program.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, 0));
    program.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX));
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap_or_default(),
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the filter's pointer and length are those of `program`, which lives until the call has copied it.
    let status = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            u32::try_from(size_of::<libc::sock_fprog>()).unwrap_or_default(),
        )
    };
    if status == 0 {
        Ok(())
    } else {
        Err(Error::io("failed to filter proc events", std::io::Error::last_os_error()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message as the kernel sends it.
    fn message(what: u32, data: &[u32]) -> Vec<u8> {
        let mut bytes = request();
        bytes.truncate(NETLINK_HEADER + CONNECTOR_HEADER);
        bytes.extend(what.to_ne_bytes());
        bytes.extend([0; 12]);
        for word in data {
            bytes.extend(word.to_ne_bytes());
        }
        let length = u32::try_from(bytes.len()).unwrap();
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes
    }

    fn pid(number: i32) -> Pid {
        Pid::new(number).unwrap()
    }

    #[test]
    fn each_kind_is_understood() {
        for (what, data, expected) in [
            (FORK, &[7, 7, 9, 9][..], Some(Event::Fork { parent: pid(7), child: pid(9) })),
            // A thread of 7 starts a process: the parent is the process.
            (FORK, &[8, 7, 9, 9], Some(Event::Fork { parent: pid(7), child: pid(9) })),
            (FORK, &[1, 1, 10, 9], Some(Event::Thread { process: pid(9) })),
            (EXEC, &[9, 9], Some(Event::Exec { process: pid(9) })),
            (EXIT, &[10, 9, 0, 17, 7, 7], Some(Event::Exit { process: pid(9) })),
            (ACK, &[1], Some(Event::Answer(1))),
            // A parent in a pid namespace that this one does not know.
            (FORK, &[0, 0, 9, 9], None),
            (FORK, &[7, 7], None),
            (0x200, &[9, 9, 0, 0], None),
        ] {
            assert_eq!(parse(&message(what, data)).next(), expected, "{what:#x} {data:?}");
        }
    }

    #[test]
    fn a_datagram_of_several_messages_is_read_to_its_end() {
        let mut both = message(EXEC, &[9, 9]);
        both.extend(message(EXIT, &[9, 9, 0, 0]));
        both.extend([1, 2, 3]);
        let events: Vec<Event> = parse(&both).collect();
        assert_eq!(events, [Event::Exec { process: pid(9) }, Event::Exit { process: pid(9) }]);
        let mut endless = message(EXEC, &[9, 9]);
        endless[..4].copy_from_slice(&0u32.to_ne_bytes());
        assert_eq!(parse(&endless).count(), 0);
    }
}
