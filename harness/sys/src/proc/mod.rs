//! `/proc`: pure parsers, one file each, and the functions that read the files for them.
//!
//! **Guarantees:** a parser takes bytes and returns a value or a [`ParseError`]; it never panics and its work is linear in
//! the input. Reading is bounded ([`READ_LIMIT`]).
//! **Cannot see:** a zombie's `environ`, `cmdline`, `exe` and `cwd` (gone), another user's, or a non-dumpable process's
//! `environ` (EACCES), and what `hidepid` hides.

pub mod mountinfo;
pub mod net;
pub mod stat;
pub mod status;

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use crate::{Error, Pid, Result};
pub use mountinfo::Mount;
pub use net::Listener;
pub use stat::{Stat, State};
pub use status::Status;

/// The most that is read of one file, in bytes. The kernel lets arguments and environment together grow to 6 MiB.
pub const READ_LIMIT: u64 = 8 << 20;

/// What was wrong with a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseError(&'static str);

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unexpected content: {}", self.0)
    }
}

impl std::error::Error for ParseError {}

fn number<T: std::str::FromStr>(
    field: Option<&[u8]>,
    what: &'static str,
) -> std::result::Result<T, ParseError> {
    field
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .and_then(|text| text.parse().ok())
        .ok_or(ParseError(what))
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

/// Splits `cmdline` or `environ`: each string ends in a NUL byte, the last one's may be missing.
pub fn strings(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    let content = content.strip_suffix(b"\0").unwrap_or(content);
    // An empty file is no strings, not one empty string.
    content.split(|byte| *byte == 0).take(if content.is_empty() { 0 } else { usize::MAX })
}

/// The variables of an `environ`, in the order of the file. An entry without `=` is passed over.
pub fn variables(environ: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    strings(environ).filter_map(|entry| {
        let at = entry.iter().position(|byte| *byte == b'=')?;
        Some((entry.get(..at)?, entry.get(at + 1..)?))
    })
}

/// The pids of a `children` or `cgroup.procs` file. Zero, which stands for a process of another pid namespace, is kept as
/// `None`.
pub fn pids(content: &[u8]) -> impl Iterator<Item = Option<Pid>> {
    words(content).filter_map(|word| number::<i32>(Some(word), "pid").ok()).map(Pid::new)
}

/// The path on the cgroup v2 hierarchy in `/proc/PID/cgroup` (the line that begins with `0::`).
#[must_use]
pub fn cgroup_path(content: &[u8]) -> Option<&[u8]> {
    content.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))
}

fn path(pid: Pid, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{file}"))
}

/// Reads a file whole, up to [`READ_LIMIT`].
///
/// # Errors
/// As the system says; a process that ended meanwhile is [`Error::is_gone`].
pub fn read(path: &std::path::Path) -> Result<Vec<u8>> {
    let failed = |e| Error::io(format!("failed to read {}", path.display()), e);
    let mut content = Vec::with_capacity(4096);
    File::open(path).map_err(failed)?.take(READ_LIMIT).read_to_end(&mut content).map_err(failed)?;
    Ok(content)
}

/// Reads a file that the kernel writes as one record, such as `stat`, with one system call instead of two: only a file of many
/// records can come in parts.
fn read_record(path: &std::path::Path) -> Result<Vec<u8>> {
    let failed = |e| Error::io(format!("failed to read {}", path.display()), e);
    let mut content = vec![0; 8192];
    let length = File::open(path).map_err(failed)?.read(&mut content).map_err(failed)?;
    if length == content.len() {
        // A user in thousands of groups has a long `status`.
        return read(path);
    }
    content.truncate(length);
    Ok(content)
}

fn parse_failed(path: &std::path::Path, error: ParseError) -> Error {
    Error::new(format!("failed to parse {}: {error}", path.display()))
}

/// `/proc/PID/stat`.
///
/// # Errors
/// As [`read`]; content that no kernel writes.
pub fn stat(pid: Pid) -> Result<Stat> {
    let path = path(pid, "stat");
    Stat::parse(&read_record(&path)?).map_err(|e| parse_failed(&path, e))
}

/// A process's resident memory in pages, from `/proc/PID/statm`. The figure in `stat` is off by up to 64 pages per processor
/// (proc_pid_stat(5) calls it inaccurate; on Linux 6.18 `statm` is summed up exactly).
///
/// # Errors
/// As [`read`]; content that no kernel writes.
pub fn resident_pages(pid: Pid) -> Result<u64> {
    let path = path(pid, "statm");
    number(words(&read_record(&path)?).nth(1), "resident memory").map_err(|e| parse_failed(&path, e))
}

/// `/proc/PID/status`.
///
/// # Errors
/// As [`read`]; content that no kernel writes.
pub fn status(pid: Pid) -> Result<Status> {
    let path = path(pid, "status");
    Status::parse(&read_record(&path)?).map_err(|e| parse_failed(&path, e))
}

/// `/proc/PID/cmdline`, one string per argument.
///
/// # Errors
/// As [`read`].
pub fn cmdline(pid: Pid) -> Result<Vec<Vec<u8>>> {
    Ok(strings(&read(&path(pid, "cmdline"))?).map(<[u8]>::to_vec).collect())
}

/// `/proc/PID/environ`, unparsed: see [`variables`].
///
/// # Errors
/// As [`read`]; [`Error::is_denied`] for other users' and non-dumpable processes.
pub fn environ(pid: Pid) -> Result<Vec<u8>> {
    read(&path(pid, "environ"))
}

/// A thread of the process that still runs, and through which its files can be read. A process whose main thread has ended
/// shows empty or refused files under its own number, and all of them under its other threads' (Linux 6.18).
///
/// # Errors
/// As [`read`].
pub fn living_thread(pid: Pid) -> Result<Option<Pid>> {
    for thread in threads(pid)? {
        let path = path(pid, &format!("task/{thread}/stat"));
        let content = match read(&path) {
            Ok(content) => content,
            Err(error) if error.is_gone() => continue,
            Err(error) => return Err(error),
        };
        if Stat::parse(&content).is_ok_and(|stat| !stat.state.is_dead()) {
            return Ok(Some(thread));
        }
    }
    Ok(None)
}

/// What can be said of a process's environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Environment {
    /// The content of `environ`, unparsed: see [`variables`].
    Known(Vec<u8>),
    /// It has none: it was cleared, or this is a kernel thread.
    Empty,
    /// It is just executing a program: it has none yet, or had another one when the reading began.
    NotYet,
    /// The process is dead or dying.
    Gone,
    /// It lets nobody read it: another user's, or not dumpable.
    Refused,
}

/// A process's environment, through another thread where the main thread has ended.
///
/// # Errors
/// Where the kernel refuses what it refuses to nobody, such as for lack of descriptors.
pub fn environment(pid: Pid) -> Result<Environment> {
    let (content, is_refused) = match environ(pid) {
        Ok(content) => (content, false),
        Err(error) if error.is_gone() => (Vec::new(), false),
        Err(error) if error.is_denied() => (Vec::new(), true),
        Err(error) => return Err(error),
    };
    let stat = match stat(pid) {
        Ok(stat) => stat,
        Err(error) if error.is_gone() => return Ok(Environment::Gone),
        Err(error) if error.is_denied() => return Ok(Environment::Refused),
        Err(error) => return Err(error),
    };
    if stat.state.is_dead() && stat.threads > 1 {
        return match living_thread(pid)?.map(environ) {
            Some(Ok(content)) => Ok(Environment::Known(content)),
            Some(Err(error)) if error.is_denied() => Ok(Environment::Refused),
            Some(Err(error)) if !error.is_gone() => Err(error),
            Some(Err(_)) | None => Ok(Environment::Gone),
        };
    }
    // Memory that goes away in the middle of the reading, by exec or exit, ends it as if that were all.
    let size = u64::try_from(content.len()).unwrap_or(u64::MAX);
    Ok(match stat {
        _ if !content.is_empty() && stat.environment_size == Some(size) => Environment::Known(content),
        _ if stat.state.is_dead() || stat.is_exiting() => Environment::Gone,
        _ if is_refused => Environment::Refused,
        _ if stat.is_kernel_thread() || stat.environment_size == Some(0) => Environment::Empty,
        _ => Environment::NotYet,
    })
}

/// Where `/proc/PID/exe` or `/proc/PID/cwd` points to, as the kernel words it.
///
/// # Errors
/// As [`read`].
pub fn link(pid: Pid, name: &str) -> Result<Vec<u8>> {
    let path = path(pid, name);
    let target =
        std::fs::read_link(&path).map_err(|e| Error::io(format!("failed to read {}", path.display()), e))?;
    Ok(std::os::unix::ffi::OsStringExt::into_vec(target.into_os_string()))
}

/// A process's path on the cgroup v2 hierarchy; empty where there is none.
///
/// # Errors
/// As [`read`].
pub fn cgroup(pid: Pid) -> Result<Vec<u8>> {
    Ok(cgroup_path(&read_record(&path(pid, "cgroup"))?).unwrap_or_default().to_vec())
}

/// The process's threads.
///
/// # Errors
/// As [`read`].
pub fn threads(pid: Pid) -> Result<Vec<Pid>> {
    numbers_in(&path(pid, "task"))
}

/// Every process that `/proc` shows.
///
/// # Errors
/// As [`read`].
pub fn processes() -> Result<Vec<Pid>> {
    numbers_in(std::path::Path::new("/proc"))
}

fn numbers_in(path: &std::path::Path) -> Result<Vec<Pid>> {
    let failed = |e| Error::io(format!("failed to list {}", path.display()), e);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = match entry {
            Ok(entry) => entry,
            // The process ended while it was listed.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => break,
            Err(error) => return Err(failed(error)),
        };
        found.extend(entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::new));
    }
    Ok(found)
}

/// `/proc/PID/task/TID/stat` and `status`, for the state of one thread.
///
/// # Errors
/// As [`stat()`].
pub fn thread(pid: Pid, thread: Pid) -> Result<(Stat, Status)> {
    let stat_path = path(pid, &format!("task/{thread}/stat"));
    let status_path = path(pid, &format!("task/{thread}/status"));
    Ok((
        Stat::parse(&read(&stat_path)?).map_err(|e| parse_failed(&stat_path, e))?,
        Status::parse(&read(&status_path)?).map_err(|e| parse_failed(&status_path, e))?,
    ))
}

/// The children of every thread of a process, orphans that it adopted included. Complete only for a process that does
/// not run meanwhile (proc_pid_children(5)), so callers repeat it until it is empty.
///
/// # Errors
/// As [`read`]; [`Error::is_gone`] also on a kernel without `CONFIG_PROC_CHILDREN`.
pub fn children(pid: Pid) -> Result<Vec<Pid>> {
    children_of_threads(pid, &threads(pid)?)
}

/// As [`children`], of a process that has only its main thread, for a third of the system calls.
///
/// # Errors
/// As [`children`].
pub fn children_of_main_thread(pid: Pid) -> Result<Vec<Pid>> {
    children_of_threads(pid, &[pid])
}

fn children_of_threads(pid: Pid, threads: &[Pid]) -> Result<Vec<Pid>> {
    let mut found = Vec::new();
    for thread in threads.iter().copied() {
        match read(&path(pid, &format!("task/{thread}/children"))) {
            Ok(content) => found.extend(pids(&content).flatten()),
            Err(error) if error.is_gone() && thread != pid => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The inodes of the sockets that a process holds, from at most `limit` of its descriptors; and whether there were more.
///
/// # Errors
/// As [`read`]; [`Error::is_denied`] for other users' processes.
pub fn sockets(pid: Pid, limit: usize) -> Result<(Vec<u64>, bool)> {
    let folder = path(pid, "fd");
    let list = std::fs::read_dir(&folder)
        .map_err(|e| Error::io(format!("failed to list {}", folder.display()), e))?;
    let mut found = Vec::new();
    for (count, entry) in list.flatten().enumerate() {
        if count == limit {
            return Ok((found, true));
        }
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        let number = target.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']'));
        found.extend(number.and_then(|text| text.parse::<u64>().ok()));
    }
    Ok((found, false))
}

/// The listening sockets of a process's network namespace.
///
/// # Errors
/// As [`read`].
pub fn listeners(pid: Pid) -> Result<Vec<Listener>> {
    let mut found = Vec::new();
    for (file, protocol) in net::TABLES {
        match read(&path(pid, file)) {
            Ok(content) => found.extend(net::listeners(&content, *protocol)),
            // A kernel without IPv6 has no tcp6.
            Err(error) if error.is_gone() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The network namespace of a process, so that its tables are read once for all processes in it.
///
/// # Errors
/// As [`read`].
pub fn net_namespace(pid: Pid) -> Result<u64> {
    let path = path(pid, "ns/net");
    Ok(std::fs::metadata(&path)
        .map_err(|e| Error::io(format!("failed to read {}", path.display()), e))?
        .ino())
}

/// The mounts that the calling process sees.
///
/// # Errors
/// As [`read`].
pub fn mounts() -> Result<Vec<Mount>> {
    Ok(mountinfo::parse(&read(std::path::Path::new("/proc/self/mountinfo"))?))
}

/// The calling process's path on the cgroup v2 hierarchy.
///
/// # Errors
/// As [`read`]; an error where there is no such hierarchy.
pub fn own_cgroup() -> Result<Vec<u8>> {
    let content = read(std::path::Path::new("/proc/self/cgroup"))?;
    cgroup_path(&content).map(<[u8]>::to_vec).ok_or_else(|| {
        Error::new("no cgroup v2 hierarchy in /proc/self/cgroup (a kernel with cgroup v1 only)")
    })
}

/// Whether `/proc` is that of this process's pid namespace: with another one's, every number read would mean another
/// process.
///
/// # Errors
/// Where there is no `/proc`, with what to do about it.
pub fn check_is_own() -> Result<()> {
    let own = std::fs::read_link("/proc/self")
        .map_err(|e| Error::io("failed to read /proc/self; mount /proc", e))?;
    if own.as_os_str() == std::ffi::OsStr::new(&Pid::this().to_string()) {
        return Ok(());
    }
    Err(Error::new(format!(
        "/proc is of another pid namespace (it calls this process {}, which is {}); mount one: unshare --mount-proc",
        own.display(),
        Pid::this()
    )))
}

/// The machine's clock in ticks since boot, as start times are counted, and ticks per second.
///
/// # Errors
/// Where the clock or the tick length cannot be read.
pub fn ticks_now() -> Result<(u64, u64)> {
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)
        .ok()
        .flatten()
        .and_then(|ticks| u64::try_from(ticks).ok())
        .filter(|ticks| *ticks > 0)
        .ok_or_else(|| Error::new("failed to read the length of a clock tick"))?;
    let content = read(std::path::Path::new("/proc/uptime"))?;
    let seconds: f64 = number(words(&content).next(), "uptime")
        .map_err(|e| parse_failed(std::path::Path::new("/proc/uptime"), e))?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an uptime is a small positive number"
    )]
    let ticks = (seconds * per_second as f64) as u64;
    Ok((ticks, per_second))
}

/// The size of a memory page in bytes.
#[must_use]
pub fn page_size() -> u64 {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|size| u64::try_from(size).ok())
        .unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(content: &[u8]) -> Vec<&[u8]> {
        strings(content).collect()
    }

    #[test]
    fn arguments_keep_empty_ones_and_bytes_that_are_not_text() {
        assert_eq!(split(b"sh\0-c\0\0\xff\0"), [&b"sh"[..], b"-c", b"", b"\xff"]);
        assert_eq!(split(b"cut"), [&b"cut"[..]]);
        assert!(split(b"").is_empty());
    }

    #[test]
    fn a_rewritten_environment_has_no_variables() {
        assert!(variables(b"[kworker/0:1]\0\0\0").next().is_none());
        assert_eq!(variables(b"A=1\0B==\0").collect::<Vec<_>>(), [(&b"A"[..], &b"1"[..]), (b"B", b"=")]);
    }

    #[test]
    fn a_process_of_another_namespace_is_kept_as_unknown() {
        assert_eq!(pids(b"0\n17\nx\n").collect::<Vec<_>>(), [None, Pid::new(17)]);
    }

    #[test]
    fn the_unified_hierarchy_is_found_among_the_old_ones() {
        assert_eq!(cgroup_path(b"9:pids:/a\n0::/user.slice/x\n"), Some(&b"/user.slice/x"[..]));
        assert_eq!(cgroup_path(b"9:pids:/a\n"), None);
    }
}
