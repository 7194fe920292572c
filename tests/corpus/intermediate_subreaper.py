#!/usr/bin/python3
# Leaks: a process that is a child subreaper (PR_SET_CHILD_SUBREAPER), in its own session, with a
#   double-forked grandchild that the kernel gave to it as a child.
# Remains after leak: 2 alive, 0 zombies.
#   State: SUBREAPER (parent: init or the detector) and GRANDCHILD (parent: SUBREAPER). The process
#   between them has exited and SUBREAPER has reaped it.
# Missed by: a detector that is itself a subreaper and counts only what is given to it: GRANDCHILD
#   never is, as long as SUBREAPER lives. If it ends SUBREAPER only, GRANDCHILD turns up
#   afterwards, so one look is not enough.

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import NoReturn

LIFE = 120
PR_SET_CHILD_SUBREAPER = 36


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


def subreaper(*, leak: bool, ready_w: int, stop_r: int) -> NoReturn:
    os.setsid()
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        os._exit(1)
    pid_r, pid_w = os.pipe()
    between = os.fork()
    if between == 0:
        grandchild = os.fork()
        if grandchild == 0:
            for descriptor in (ready_w, stop_r, pid_r, pid_w):
                os.close(descriptor)
            live()
        os.write(pid_w, str(grandchild).encode())
        os._exit(0)
    os.close(pid_w)
    grandchild = int(os.read(pid_r, 32))
    os.close(pid_r)
    # A process gives its children away before it can be reaped: from here on it is ours.
    os.waitpid(between, 0)
    with open(f"/proc/{grandchild}/stat", encoding="utf-8", errors="replace") as file:
        parent = int(file.read().rpartition(")")[2].split()[1])
    if parent != os.getpid():
        os._exit(1)
    if leak:
        os.close(stop_r)
    os.write(ready_w, b"r")
    os.close(ready_w)
    if leak:
        live()
    signal.alarm(LIFE)
    os.read(stop_r, 1)
    os.kill(grandchild, signal.SIGTERM)
    os.waitpid(grandchild, 0)
    os._exit(0)


def main(*, leak: bool) -> int:
    ready_r, ready_w = os.pipe()
    stop_r, stop_w = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ready_r)
        os.close(stop_w)
        subreaper(leak=leak, ready_w=ready_w, stop_r=stop_r)
    os.close(ready_w)
    os.close(stop_r)
    if os.read(ready_r, 1) != b"r":
        return 1
    if not leak:
        os.close(stop_w)
        os.waitpid(child, 0)
    return 0


if __name__ == "__main__":
    if sys.argv[1:] not in (["leak"], ["clean"]):
        sys.exit(f"usage: {sys.argv[0]} leak|clean")
    prepare()
    sys.exit(main(leak=sys.argv[1] == "leak"))
