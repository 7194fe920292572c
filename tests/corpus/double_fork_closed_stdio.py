#!/usr/bin/python3
# Leaks: the classic daemon: fork, setsid, fork, chdir /, umask, stdio to /dev/null.
# Remains after leak: 1 alive, 0 zombies.
# Missed by: a detector that walks the tree of parents (the daemon's parent exited, it belongs to
#   init), one that ends process group or session, and one that waits for the end of file on the
#   stdout and stderr of CMD: the daemon holds neither.

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

LIFE = 120


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


def daemon(*, leak: bool, ready_w: int, stop_r: int, gone_w: int) -> NoReturn:
    os.chdir("/")
    os.umask(0)
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    # Only with 0, 1 or 2 closed at the start is it one of them, and then it must stay.
    if null > 2:
        os.close(null)
    if leak:
        os.close(stop_r)
        os.close(gone_w)
    os.write(ready_w, b"r")
    os.close(ready_w)
    if leak:
        live()
    signal.alarm(LIFE)
    os.read(stop_r, 1)
    # The kernel closes gone_w at exit: the end of file tells main.
    os._exit(0)


def main(*, leak: bool) -> int:
    ready_r, ready_w = os.pipe()
    stop_r, stop_w = os.pipe()
    gone_r, gone_w = os.pipe()
    first = os.fork()
    if first == 0:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        for descriptor in (ready_r, stop_w, gone_r):
            os.close(descriptor)
        daemon(leak=leak, ready_w=ready_w, stop_r=stop_r, gone_w=gone_w)
    for descriptor in (ready_w, stop_r, gone_w):
        os.close(descriptor)
    os.waitpid(first, 0)
    if os.read(ready_r, 1) != b"r":
        return 1
    if not leak:
        os.close(stop_w)
        os.read(gone_r, 1)
    return 0


if __name__ == "__main__":
    if sys.argv[1:] not in (["leak"], ["clean"]):
        sys.exit(f"usage: {sys.argv[0]} leak|clean")
    prepare()
    sys.exit(main(leak=sys.argv[1] == "leak"))
