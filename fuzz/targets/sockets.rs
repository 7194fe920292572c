//! Any bytes as a table of sockets: never more listeners than lines, and addresses no longer than they can be written.
#![no_main]

use headcount_sys::proc::net::{self, Protocol};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|content: &[u8]| {
    let lines = content.split(|byte| *byte == b'\n').count();
    for (protocol, prefix) in [(Protocol::Tcp, "tcp "), (Protocol::Udp, "udp "), (Protocol::Unix, "unix ")] {
        let mut count = 0;
        for listener in net::listeners(content, protocol) {
            count += 1;
            let address = listener.address.strip_prefix(prefix.as_bytes()).unwrap();
            if protocol == Protocol::Unix {
                assert!(!address.contains(&b'\n') && address.len() <= content.len());
            } else {
                let text = std::str::from_utf8(address).unwrap();
                text.parse::<std::net::SocketAddr>().unwrap();
            }
        }
        // The first line is the heading.
        assert!(count < lines || count == 0);
    }
});
