//! Tables of sockets as the kernel writes them, from arbitrary values: the listening ones are read back, with their addresses.
#![no_main]

use std::net::{IpAddr, SocketAddr};

use headcount_sys::proc::net::{self, Listener, Protocol};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Inet {
    is_v6: bool,
    address: [u8; 16],
    port: u16,
    state: u8,
    inode: u64,
}

#[derive(Arbitrary, Debug)]
struct Unix {
    accepts: bool,
    inode: u64,
    path: Vec<u8>,
}

#[derive(Arbitrary, Debug)]
struct Written {
    inet: Vec<Inet>,
    unix: Vec<Unix>,
}

impl Inet {
    /// tcp4_seq_show() and tcp6_seq_show(): each 32 bits of the address as a number of this machine.
    fn line(&self) -> String {
        let length = if self.is_v6 { 16 } else { 4 };
        let groups = self.address[..length].chunks(4);
        let digits: String =
            groups.map(|group| format!("{:08X}", u32::from_ne_bytes(group.try_into().unwrap()))).collect();
        let none = "0".repeat(length * 2);
        let (port, state, inode) = (self.port, self.state, self.inode);
        format!(
            "   0: {digits}:{port:04X} {none}:0000 {state:02X} 00000000:00000000 00:00000000 00000000     0        0 \
             {inode} 1 0000000000000000 100 0 0 10 0\n"
        )
    }

    fn listener(&self, name: &str) -> Listener {
        let ip: IpAddr = if self.is_v6 {
            self.address.into()
        } else {
            <[u8; 4]>::try_from(&self.address[..4]).unwrap().into()
        };
        let address = format!("{name} {}", SocketAddr::new(ip, self.port)).into_bytes();
        Listener { inode: self.inode, address }
    }
}

fuzz_target!(|written: Written| {
    let mut table = b"  sl  local_address rem_address   st\n".to_vec();
    table.extend(written.inet.iter().flat_map(|socket| socket.line().into_bytes()));
    for (protocol, name, state) in [(Protocol::Tcp, "tcp", 10), (Protocol::Udp, "udp", 7)] {
        let listening = written.inet.iter().filter(|socket| socket.state == state);
        let expected: Vec<Listener> = listening.map(|socket| socket.listener(name)).collect();
        assert_eq!(net::listeners(&table, protocol).collect::<Vec<_>>(), expected);
    }

    let mut table = b"Num       RefCount Protocol Flags    Type St Inode Path\n".to_vec();
    let mut expected = Vec::new();
    for socket in &written.unix {
        // unix_seq_show() writes NUL as `@`, and all else as it is: a path with a line's end in it cannot be told from two
        // lines, so there is none here.
        let path: Vec<u8> =
            socket.path.iter().map(|byte| if matches!(byte, 0 | b'\n') { b'@' } else { *byte }).collect();
        let flags = if socket.accepts { 0x10000 } else { 0 };
        let inode = socket.inode;
        table.extend(
            format!("0000000000000000: 00000002 00000000 {flags:08X} 0001 01 {inode:5}").into_bytes(),
        );
        if !path.is_empty() {
            table.push(b' ');
            table.extend_from_slice(&path);
        }
        table.push(b'\n');
        if socket.accepts {
            let shown: &[u8] = if path.is_empty() { b"(unnamed)" } else { &path };
            expected.push(Listener { inode, address: [b"unix ", shown].concat() });
        }
    }
    assert_eq!(net::listeners(&table, Protocol::Unix).collect::<Vec<_>>(), expected);
});
