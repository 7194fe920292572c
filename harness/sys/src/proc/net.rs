//! `/proc/PID/net/{tcp,tcp6,udp,udp6,unix}`: who listens where (proc_pid_net(5)).
//!
//! **Cannot tell:** the kernel writes a unix socket's path as it is (`unix_seq_show`), so one with a line's end in it reads as two
//! lines, the second of which may be anything.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::words;

/// A table of sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `tcp` and `tcp6`
    Tcp,
    /// `udp` and `udp6`
    Udp,
    /// `unix`
    Unix,
}

/// The tables, relative to `/proc/PID/`.
pub(super) const TABLES: &[(&str, Protocol)] = &[
    ("net/tcp", Protocol::Tcp),
    ("net/tcp6", Protocol::Tcp),
    ("net/udp", Protocol::Udp),
    ("net/udp6", Protocol::Udp),
    ("net/unix", Protocol::Unix),
];

/// A socket that waits for others: a listening one, or (UDP) a bound one without a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The socket's inode, by which a process's descriptors name it.
    pub inode: u64,
    /// Protocol and address for reports: `tcp 127.0.0.1:8000`, `unix /run/x.sock`, `unix @abstract`.
    pub address: Vec<u8>,
}

/// `TCP_LISTEN` and `TCP_CLOSE` (which an unconnected UDP socket shows) of `net/tcp_states.h`.
const LISTEN: &[u8] = b"0A";
const UNCONNECTED: &[u8] = b"07";
/// `__SO_ACCEPTCON` of `linux/net.h`, in the flags of a unix socket.
const ACCEPTS: u64 = 1 << 16;

/// The listeners of one table; lines that no kernel writes are passed over.
pub fn listeners(content: &[u8], protocol: Protocol) -> impl Iterator<Item = Listener> {
    content.split(|byte| *byte == b'\n').skip(1).filter_map(move |line| match protocol {
        Protocol::Tcp => inet(line, "tcp", LISTEN),
        Protocol::Udp => inet(line, "udp", UNCONNECTED),
        Protocol::Unix => unix(line),
    })
}

fn inet(line: &[u8], name: &str, state: &[u8]) -> Option<Listener> {
    // sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode
    let mut fields = words(line);
    let local = fields.nth(1)?;
    if fields.nth(1)? != state {
        return None;
    }
    let inode = std::str::from_utf8(fields.nth(5)?).ok()?.parse().ok()?;
    let address = format!("{name} {}", address(std::str::from_utf8(local).ok()?)?).into_bytes();
    Some(Listener { inode, address })
}

fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Each group of eight digits is a number in network order, printed as the machine reads it.
    let group = |at: usize| Some(u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(group(0)?)),
        32 => {
            let mut bytes = [0u8; 16];
            for (place, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&group(place * 8)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn unix(line: &[u8]) -> Option<Listener> {
    // Num RefCount Protocol Flags Type St Inode Path
    let mut rest = line;
    let mut fields = [&b""[..]; 7];
    for field in &mut fields {
        rest = rest.trim_ascii_start();
        let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
        (*field, rest) = rest.split_at(end);
    }
    let [_, _, _, flags, _, _, inode] = fields;
    let flags = u64::from_str_radix(std::str::from_utf8(flags).ok()?, 16).ok()?;
    if flags & ACCEPTS == 0 {
        return None;
    }
    let inode = std::str::from_utf8(inode).ok()?.parse().ok()?;
    // Behind one space, the path takes what is left: it may have spaces of its own.
    let path = rest.get(1..).filter(|path| !path.is_empty()).unwrap_or(b"(unnamed)");
    Some(Listener { inode, address: [b"unix ", path].concat() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(content: &str, protocol: Protocol) -> Vec<(u64, String)> {
        listeners(content.as_bytes(), protocol)
            .map(|one| (one.inode, String::from_utf8(one.address).unwrap()))
            .collect()
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn only_listening_tcp_sockets_are_listed() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 5021 1 0 100 0 0 10 0\n\
            1: 0100007F:1F40 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 5022 1 0 20 4 30 10 -1\n\
            2: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 7 1\n\
            cut short\n";
        assert_eq!(
            addresses(table, Protocol::Tcp),
            [(5021, "tcp 127.0.0.1:8000".to_owned()), (7, "tcp [::1]:80".to_owned())]
        );
    }

    #[test]
    fn listening_unix_sockets_have_a_path_an_abstract_name_or_none() {
        let table = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 18331 /run/x.sock\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 18332 @name\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 18333\n\
            0000000000000000: 00000002 00000000 00010000 0001 01    18 /run/a  b \n\
            0000000000000000: 00000003 00000000 00000000 0001 03 18334 /run/x.sock\n";
        assert_eq!(
            addresses(table, Protocol::Unix),
            [
                (18331, "unix /run/x.sock".to_owned()),
                (18332, "unix @name".to_owned()),
                (18333, "unix (unnamed)".to_owned()),
                (18, "unix /run/a  b ".to_owned())
            ]
        );
    }
}
