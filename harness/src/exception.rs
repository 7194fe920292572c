//! Processes that are meant to outlive a command, each with its name and its reason. None is in force unless it is named.
//!
//! **Guarantees:** a process is recognised by what the program makes of its own command line, so an exception never covers another
//! program; what it started is covered with it. An excepted process is reported, and neither counted as a leak nor signalled.
//! **Cannot tell:** a program that gives itself another's command line.

use crate::evidence::Process;

/// An exception by name.
#[derive(Clone, Copy, Debug)]
pub struct Exception {
    /// What it is called on the command line and in reports.
    pub name: &'static str,
    /// Why somebody would want it.
    pub reason: &'static str,
    matches: fn(&Process) -> bool,
}

impl Exception {
    /// All that there are, by name.
    pub const ALL: [Self; 5] = [
        Self {
            name: "bazel",
            reason: "the Bazel server keeps the build graph in memory, and ends after three idle hours",
            matches: is_bazel_server,
        },
        Self {
            name: "gradle",
            reason: "the Gradle daemon keeps a warm JVM for the next build, and ends after three idle hours",
            matches: is_gradle_daemon,
        },
        Self {
            name: "kotlin",
            reason: "the Kotlin compile daemon is shared by builds, and ends after two idle hours",
            matches: is_kotlin_daemon,
        },
        Self {
            name: "sccache",
            reason: "the sccache server holds the compiler cache, and ends after ten idle minutes",
            matches: is_sccache_server,
        },
        Self {
            name: "ssh",
            reason: "the master of a shared connection (ControlPersist) stays for the next ssh, as long as its user configured",
            matches: is_ssh_master,
        },
    ];

    /// The one with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name == name)
    }

    /// Whether a process is what this exception is for.
    #[must_use]
    pub fn covers(&self, process: &Process) -> bool {
        (self.matches)(process)
    }
}

impl PartialEq for Exception {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Exception {}

/// The server is a JVM (or, since Bazel 1, calls itself `bazel(WORKSPACE)`) that runs `A-server.jar` from the installation.
fn is_bazel_server(process: &Process) -> bool {
    has_argument(process, |word| word.ends_with(b"/A-server.jar"))
}

/// `java … org.gradle.launcher.daemon.bootstrap.GradleDaemon VERSION`. Its workers are below it.
fn is_gradle_daemon(process: &Process) -> bool {
    runs(process, b"java")
        && has_argument(process, |word| word == b"org.gradle.launcher.daemon.bootstrap.GradleDaemon")
}

/// `java … org.jetbrains.kotlin.daemon.KotlinCompileDaemon …`
fn is_kotlin_daemon(process: &Process) -> bool {
    runs(process, b"java")
        && has_argument(process, |word| word == b"org.jetbrains.kotlin.daemon.KotlinCompileDaemon")
}

/// The server is `sccache` called without arguments; a compilation through it always has some.
fn is_sccache_server(process: &Process) -> bool {
    runs(process, b"sccache") && process.argv.len() == 1
}

/// ssh gives itself the title `ssh: PATH [mux]`.
fn is_ssh_master(process: &Process) -> bool {
    let title = process.argv.first().map(|title| title.strip_suffix(b" ").unwrap_or(title));
    runs(process, b"ssh")
        && title.is_some_and(|title| title.starts_with(b"ssh: ") && title.ends_with(b" [mux]"))
}

/// Whether the program has this name, whatever the process calls itself.
fn runs(process: &Process, program: &[u8]) -> bool {
    let exe = process.exe.as_deref().unwrap_or_default();
    let exe = exe.strip_suffix(b" (deleted)").unwrap_or(exe);
    exe.rsplit(|byte| *byte == b'/').next() == Some(program)
}

fn has_argument(process: &Process, is_wanted: impl Fn(&[u8]) -> bool) -> bool {
    process.argv.iter().skip(1).any(|word| is_wanted(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Life;
    use crate::verdict::tests::process;

    fn covering(exe: &str, argv: &[&str]) -> Vec<&'static str> {
        let mut process = process(10, 1, Life::Alive);
        process.exe = Some(exe.as_bytes().to_vec());
        process.argv = argv.iter().map(|word| word.as_bytes().to_vec()).collect();
        Exception::ALL.iter().filter(|one| one.covers(&process)).map(|one| one.name).collect()
    }

    #[test]
    fn each_covers_its_own_program_and_nothing_else() {
        let gradle = "org.gradle.launcher.daemon.bootstrap.GradleDaemon";
        let jar = "/root/.cache/bazel/_bazel_root/install/0f/A-server.jar";
        for (exe, argv, expected) in [
            (
                "/opt/jdk/bin/java",
                &["/opt/jdk/bin/java", "-cp", "x.jar", gradle, "8.10"][..],
                &["gradle"][..],
            ),
            (
                "/opt/jdk/bin/java",
                &["bazel(app)", "--add-opens=java.base/java.nio=ALL-UNNAMED", "-jar", jar],
                &["bazel"],
            ),
            ("/opt/jdk/bin/java", &["java", "org.jetbrains.kotlin.daemon.KotlinCompileDaemon"], &["kotlin"]),
            ("/usr/bin/sccache", &["/usr/bin/sccache"], &["sccache"]),
            ("/usr/bin/ssh", &["ssh: /root/.ssh/cm-1 [mux]"], &["ssh"]),
            // A compilation, a client, a session; and programs that only have the words among their arguments.
            ("/usr/bin/sccache", &["sccache", "rustc", "-vV"], &[]),
            ("/opt/jdk/bin/java", &["java", "-jar", "gradle-launcher.jar", "build"], &[]),
            ("/usr/bin/ssh", &["ssh", "host", "sleep 9"], &[]),
            ("/usr/bin/grep", &["grep", gradle], &[]),
            ("/tmp/evil", &["ssh: x [mux]"], &[]),
        ] {
            assert_eq!(covering(exe, argv), expected, "{exe} {argv:?}");
        }
    }

    #[test]
    fn names_are_sorted_and_found() {
        assert!(Exception::ALL.is_sorted_by_key(|one| one.name));
        assert_eq!(Exception::named("gradle").map(|one| one.name), Some("gradle"));
        assert_eq!(Exception::named("Gradle"), None);
    }
}
