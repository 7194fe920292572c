#!/usr/bin/python3
# Leaks: a process with secrets (made up) in its argv and in its environment.
# Remains after leak: 1 alive, 0 zombies.
# Missed by: no detector, as a leak; but one that puts the command line or the environment into
#   its report as it is publishes them, in a CI log that many can read. What must not show up:
#   hunter2-PLAIN, sk-live-abcdefghijklmnop, pgpass-PLAIN, envsecret-PLAIN.

from __future__ import annotations

import os
import signal
import sys

# Descriptor 3 is the ready pipe. SIGPIPE and the others are as Python's start sets them.
PROGRAM = """
import os, signal
signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.alarm(120)
os.write(3, b"r")
os.close(3)
while True:
    signal.pause()
"""


def prepare() -> None:
    # Dying of SIGPIPE would look like being cleaned up; a caller that ignores SIGCHLD would
    # break waitpid. The alarm bounds the main process only: fork does not inherit it.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.alarm(30)


def main(*, leak: bool) -> int:
    ready_r, ready_w = os.pipe()
    child = os.posix_spawn(
        "/usr/bin/python3",
        [
            "/usr/bin/python3",
            "-I",
            "-S",
            "-c",
            PROGRAM,
            "--password=hunter2-PLAIN",
            "--api-key",
            "sk-live-abcdefghijklmnop",
            "postgres://user:pgpass-PLAIN@localhost/db",
        ],
        {**os.environ, "AWS_SECRET_ACCESS_KEY": "envsecret-PLAIN"},
        file_actions=[(os.POSIX_SPAWN_DUP2, ready_w, 3)],
    )
    os.close(ready_w)
    if os.read(ready_r, 1) != b"r":
        return 1
    if not leak:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
    return 0


if __name__ == "__main__":
    if sys.argv[1:] not in (["leak"], ["clean"]):
        sys.exit(f"usage: {sys.argv[0]} leak|clean")
    prepare()
    sys.exit(main(leak=sys.argv[1] == "leak"))
