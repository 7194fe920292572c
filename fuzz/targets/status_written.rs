//! `/proc/PID/status` as the kernel writes it, from arbitrary values: each is read back, whatever the process calls itself.
#![no_main]

use headcount_sys::Pid;
use headcount_sys::proc::Status;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Written {
    name: Vec<u8>,
    uids: [u32; 4],
    masks: [u64; 5],
    tracer: i32,
    is_core_dumping: bool,
}

fuzz_target!(|written: Written| {
    let mut content = b"Name:\t".to_vec();
    for byte in written.name.iter().filter(|byte| **byte != 0).take(64) {
        // proc_task_name() escapes these two, as ESCAPE_SPACE | ESCAPE_SPECIAL of "\n\\".
        match byte {
            b'\n' => content.extend(b"\\n"),
            b'\\' => content.extend(b"\\\\"),
            other => content.push(*other),
        }
    }
    let ([uid, euid, suid, fsuid], [pending, shared, blocked, ignored, caught]) =
        (written.uids, written.masks);
    let (tracer, core) = (written.tracer, u8::from(written.is_core_dumping));
    content.extend(
        format!(
            "\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t9\nNgid:\t0\nPid:\t9\nPPid:\t1\nTracerPid:\t{tracer}\n\
             Uid:\t{uid}\t{euid}\t{suid}\t{fsuid}\nGid:\t0\t0\t0\t0\nFDSize:\t64\nGroups:\t0 1 \nVmPeak:\t    3284 kB\n\
             CoreDumping:\t{core}\nThreads:\t1\nSigQ:\t0/95\nSigPnd:\t{pending:016x}\nShdPnd:\t{shared:016x}\n\
             SigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\nNoNewPrivs:\t0\n"
        )
        .into_bytes(),
    );
    let expected = Status {
        uid,
        pending,
        pending_shared: shared,
        blocked,
        ignored,
        tracer: Pid::new(tracer),
        core_dumping: written.is_core_dumping,
    };
    assert_eq!(Status::parse(&content), Ok(expected));
});
