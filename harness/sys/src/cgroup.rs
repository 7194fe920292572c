//! cgroup v2: a box that no descendant leaves, whatever it does, unless a privileged process moves it.
//!
//! No controllers are needed: in a hybrid mount with an empty `cgroup.controllers`, `cgroup.procs`, `.events`, `.kill` and
//! `.freeze` all work. The mount is found in mountinfo, never guessed.
//!
//! **Guarantees:** what is born in a cgroup is listed there until it is dead; `populated 0` means that nothing lives in it
//! or below it. **Cannot see:** zombies (they are listed nowhere), and what was moved out.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use crate::proc::{self, Mount};
use crate::{Error, Pid, Result};

/// A folder below the root of a cgroup v2 mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    path: PathBuf,
}

/// The content of `cgroup.events`, for the cgroup and all below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Events {
    /// Whether a process lives in it.
    pub populated: bool,
    /// Whether all of them are frozen.
    pub frozen: bool,
}

/// Who is in a cgroup and below it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Members {
    /// Those that this pid namespace knows.
    pub pids: Vec<Pid>,
    /// How many it does not.
    pub foreign: usize,
}

/// The most folders below a cgroup that are walked; the kernel's own default limit is higher, but nobody makes so many.
const WALK_LIMIT: usize = 100_000;

/// The calling process's own cgroup.
///
/// # Errors
/// Where there is no cgroup v2 mount that shows it; the message says why.
pub fn own() -> Result<Cgroup> {
    let own = PathBuf::from(OsString::from_vec(proc::own_cgroup()?));
    let path = locate(&proc::mounts()?, &own)?;
    Ok(Cgroup { path })
}

/// Where a cgroup's folder is, given its path on the hierarchy as `/proc/PID/cgroup` has it.
fn locate(mounts: &[Mount], own: &Path) -> Result<PathBuf> {
    let shown = own.display();
    let mut seen = false;
    for mount in mounts.iter().filter(|mount| mount.kind == b"cgroup2") {
        seen = true;
        // With a cgroup namespace both are relative to its root; without, a container's mount shows a part of the tree.
        let Ok(below) = own.strip_prefix(&mount.root) else { continue };
        if below.components().any(|part| part.as_os_str() == "..") {
            continue;
        }
        // Joining an empty path would add a slash.
        return Ok(if below.as_os_str().is_empty() { mount.point.clone() } else { mount.point.join(below) });
    }
    Err(Error::new(if seen {
        format!("no cgroup v2 mount shows this process's cgroup {shown}")
    } else {
        "cgroup v2 is not mounted".to_owned()
    }))
}

impl Cgroup {
    /// The cgroup at a path that was recorded. It may be gone.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a new cgroup in this one, in which processes can live.
    ///
    /// # Errors
    /// Without the right to ([`Error::is_denied`]), or in a threaded subtree, where a process cannot be confined.
    pub fn create(&self, name: &str) -> Result<Self> {
        let child = Self { path: self.path.join(name) };
        fs::create_dir(&child.path)
            .map_err(|e| Error::io(format!("failed to create cgroup {}", child.path.display()), e))?;
        let kind = child.read("cgroup.type")?;
        if kind.trim_ascii() == b"domain" {
            return Ok(child);
        }
        let _ = fs::remove_dir(&child.path);
        Err(Error::new(format!(
            "cgroup {} is in a threaded subtree, where processes cannot be confined",
            self.path.display()
        )))
    }

    /// An open `cgroup.procs`, through which a child joins by writing `0` before it executes: so it is born inside, which
    /// costs 0.1 ms, where moving a running process costs milliseconds.
    ///
    /// # Errors
    /// As the system says.
    pub fn door(&self) -> Result<File> {
        let path = self.path.join("cgroup.procs");
        OpenOptions::new()
            .write(true)
            .open(&path)
            .map_err(|e| Error::io(format!("failed to open {} for writing", path.display()), e))
    }

    /// Moves a running process into this cgroup.
    ///
    /// # Errors
    /// Without the right to; a process that is gone.
    pub fn take_in(&self, pid: Pid) -> Result<()> {
        self.write("cgroup.procs", pid.to_string().as_bytes())
    }

    /// An open `cgroup.kill`; a `1` written to it ends all that lives inside. `None` before Linux 5.14.
    ///
    /// # Errors
    /// As the system says.
    pub fn kill_switch(&self) -> Result<Option<File>> {
        let path = self.path.join("cgroup.kill");
        match OpenOptions::new().write(true).open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && self.path.exists() => Ok(None),
            Err(error) => Err(Error::io(format!("failed to open {} for writing", path.display()), error)),
        }
    }

    /// A watch on its `cgroup.events`.
    ///
    /// # Errors
    /// As the system says.
    pub fn watch(&self) -> Result<Watch> {
        let path = self.path.join("cgroup.events");
        let file =
            File::open(&path).map_err(|e| Error::io(format!("failed to open {}", path.display()), e))?;
        Ok(Watch { file, path })
    }

    /// Who lives in it and below it. A process that forks meanwhile may be missed: freeze first, or repeat.
    ///
    /// # Errors
    /// As the system says; [`Error::is_gone`] if this cgroup (not one below) is not there any more.
    pub fn members(&self) -> Result<Members> {
        let mut members = Members::default();
        for (place, folder) in self.folders()?.into_iter().enumerate() {
            match proc::read(&folder.join("cgroup.procs")) {
                Ok(content) => {
                    for pid in proc::pids(&content) {
                        match pid {
                            Some(pid) => members.pids.push(pid),
                            None => members.foreign += 1,
                        }
                    }
                }
                Err(error) if place > 0 && error.is_gone() => {}
                // A threaded cgroup's processes are listed by its domain, above it.
                Err(error) if place > 0 && error.errno() == Some(libc::EOPNOTSUPP) => {}
                Err(error) => return Err(error),
            }
        }
        members.pids.sort_unstable();
        members.pids.dedup();
        Ok(members)
    }

    /// Asks for all inside to be frozen, or thawed. [`Watch::read`] tells when they are.
    ///
    /// # Errors
    /// As the system says.
    pub fn freeze(&self, on: bool) -> Result<()> {
        self.write("cgroup.freeze", if on { b"1" } else { b"0" })
    }

    /// Ends all inside with SIGKILL, frozen ones and ones just being born included. `false` where the kernel is older than
    /// 5.14 and cannot.
    ///
    /// # Errors
    /// As the system says.
    pub fn kill(&self) -> Result<bool> {
        match self.kill_switch()? {
            None => Ok(false),
            Some(mut switch) => {
                switch
                    .write_all(b"1")
                    .map_err(|e| Error::io(format!("failed to kill cgroup {}", self.path.display()), e))?;
                Ok(true)
            }
        }
    }

    /// Removes it, with all that was made below it. Nothing may live inside. One that is gone already is fine.
    ///
    /// # Errors
    /// Where something still lives in it, or rights are missing.
    pub fn remove(&self) -> Result<()> {
        let folders = match self.folders() {
            Ok(folders) => folders,
            Err(error) if error.is_gone() => return Ok(()),
            Err(error) => return Err(error),
        };
        // Parents come before what is below them, so the reverse order removes leaves first.
        for folder in folders.iter().rev() {
            match fs::remove_dir(folder) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(Error::io(format!("failed to remove cgroup {}", folder.display()), error));
                }
            }
        }
        Ok(())
    }

    /// Its folder and all below it, parents first.
    fn folders(&self) -> Result<Vec<PathBuf>> {
        let mut folders = vec![self.path.clone()];
        let mut next = 0;
        while let Some(folder) = folders.get(next) {
            match fs::read_dir(folder) {
                Ok(list) => {
                    let below = list.flatten().filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir()));
                    let below: Vec<PathBuf> = below.map(|e| e.path()).collect();
                    folders.extend(below);
                }
                // One below was removed meanwhile; only this cgroup itself has to be there.
                Err(error) if next > 0 && error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(Error::io(format!("failed to list cgroup {}", folder.display()), error));
                }
            }
            next += 1;
            if folders.len() > WALK_LIMIT {
                return Err(Error::new(format!(
                    "cgroup {} has more than {WALK_LIMIT} cgroups below it",
                    self.path.display()
                )));
            }
        }
        Ok(folders)
    }

    fn read(&self, file: &str) -> Result<Vec<u8>> {
        proc::read(&self.path.join(file))
    }

    fn write(&self, file: &str, content: &[u8]) -> Result<()> {
        let path = self.path.join(file);
        OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut open| open.write_all(content))
            .map_err(|e| Error::io(format!("failed to write {}", path.display()), e))
    }
}

/// An open `cgroup.events`: readable at any time, and ready ([`poll::Interest::changed`](crate::poll::Interest::changed))
/// when it changed since it was last read.
#[derive(Debug)]
pub struct Watch {
    file: File,
    path: PathBuf,
}

impl Watch {
    /// What it says now.
    ///
    /// # Errors
    /// [`Error::is_gone`] once the cgroup was removed.
    pub fn read(&mut self) -> Result<Events> {
        let failed = |e| Error::io(format!("failed to read {}", self.path.display()), e);
        let mut content = Vec::new();
        self.file.rewind().map_err(failed)?;
        self.file.read_to_end(&mut content).map_err(failed)?;
        Ok(events(&content))
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn events(content: &[u8]) -> Events {
    let has = |line: &[u8]| content.split(|byte| *byte == b'\n').any(|one| one == line);
    Events { populated: has(b"populated 1"), frozen: has(b"frozen 1") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(root: &str, point: &str) -> Mount {
        Mount { root: root.into(), point: point.into(), kind: b"cgroup2".to_vec(), options: b"rw".to_vec() }
    }

    #[test]
    fn a_hybrid_mount_a_container_and_a_namespace_are_located() {
        let at =
            |mounts: &[Mount], own: &str| locate(mounts, Path::new(own)).map(|p| p.display().to_string());
        let hybrid = [mount("/", "/sys/fs/cgroup/unified")];
        assert_eq!(at(&hybrid, "/").unwrap(), "/sys/fs/cgroup/unified");
        assert_eq!(at(&hybrid, "/a/b").unwrap(), "/sys/fs/cgroup/unified/a/b");
        assert_eq!(at(&[mount("/docker/x", "/c")], "/docker/x/y").unwrap(), "/c/y");
        assert!(at(&[mount("/docker/x", "/c")], "/other").is_err());
        assert!(at(&hybrid, "/../outside").is_err());
        assert!(at(&[], "/").unwrap_err().to_string().contains("not mounted"));
    }

    #[test]
    fn events_are_read_whatever_lines_are_added() {
        assert_eq!(events(b"populated 1\nfrozen 0\nnew 7\n"), Events { populated: true, frozen: false });
        assert_eq!(events(b""), Events::default());
    }
}
