#!/usr/bin/python3
# Leaks: a child that has given up root for good: uid and gid 65534, no groups, no capabilities.
# Remains after leak: 1 alive, 0 zombies.
# Needs: root.
#   In a user namespace there is no other uid to change to.
# Missed by: a detector that looks for the processes of its own uid only.

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

LIFE = 120
NOBODY = 65534


def prepare() -> None:
    # Dying of SIGPIPE would look like being cleaned up; a caller that ignores SIGCHLD would
    # break waitpid. The alarm bounds the main process only: fork does not inherit it.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.alarm(30)


def live() -> NoReturn:
    """Do nothing until SIGALRM ends the process."""
    signal.alarm(LIFE)
    while True:
        signal.pause()


def main(*, leak: bool) -> int:
    ready_r, ready_w = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ready_r)
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        os.write(ready_w, b"r")
        os.close(ready_w)
        live()
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
