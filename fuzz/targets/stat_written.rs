//! `/proc/PID/stat` as the kernel writes it, from arbitrary values: each is read back.
#![no_main]

use headcount_sys::Pid;
use headcount_sys::proc::{Stat, State};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Written {
    pid: i32,
    /// `TASK_COMM_LEN` is 16; workqueue names add to it, up to 64 (`proc_task_name`).
    name: Vec<u8>,
    state: u8,
    ppid: i32,
    process_group: i32,
    session: i32,
    flags: u32,
    user_ticks: u64,
    system_ticks: u64,
    threads: u16,
    start_ticks: u64,
    code_start: u64,
    environment: Option<(u64, u64)>,
}

const STATES: [(char, State); 12] = [
    ('R', State::Running),
    ('S', State::Sleeping),
    ('D', State::DiskSleep),
    ('T', State::Stopped),
    ('t', State::Traced),
    ('Z', State::Zombie),
    ('X', State::Dead),
    ('x', State::Dead),
    ('I', State::Idle),
    ('P', State::Idle),
    ('K', State::Idle),
    ('W', State::Idle),
];

fuzz_target!(|written: Written| {
    let Written { pid, name, ppid, process_group, session, flags, threads, start_ticks, .. } = &written;
    let name: Vec<u8> = name.iter().copied().filter(|byte| *byte != 0).take(64).collect();
    let (letter, state) = STATES[usize::from(written.state) % STATES.len()];
    let (user, system, code) = (written.user_ticks, written.system_ticks, written.code_start);
    let (start, end) = written.environment.unwrap_or((0, 0));
    // do_task_stat() of fs/proc/array.c: 52 fields.
    let mut line = format!("{pid} (").into_bytes();
    line.extend_from_slice(&name);
    line.extend(
        format!(
            ") {letter} {ppid} {process_group} {session} 0 -1 {flags} 96 0 0 0 {user} {system} 3 4 20 0 {threads} 0 \
             {start_ticks} 2490368 220 18446744073709551615 {code} 2 3 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 5 6 7 8 9 \
             {start} {end} 0\n"
        )
        .into_bytes(),
    );
    let Some(pid) = Pid::new(*pid) else {
        assert!(Stat::parse(&line).is_err());
        return;
    };
    let is_known = code > 1 && start > 0 && end > 0 && end >= start;
    let expected = Stat {
        pid,
        name,
        state,
        ppid: *ppid,
        process_group: *process_group,
        session: *session,
        flags: u64::from(*flags),
        cpu_ticks: user.saturating_add(system),
        threads: u64::from(*threads),
        start_ticks: *start_ticks,
        environment_size: is_known.then(|| end - start),
    };
    assert_eq!(Stat::parse(&line), Ok(expected));
});
