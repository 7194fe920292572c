#!/usr/bin/python3
# Leaks: a child that made its own session (and so its own process group), no double fork.
# Remains after leak: 1 alive, 0 zombies.
# Missed by: a detector that ends the process group or the session of CMD (killpg, a terminal's
#   SIGHUP): the child is in neither any more.
# The clean twin ends just after main: its child sees the pipe of main close and exits at once,
# and nobody waits for it. That short tail is no leak.

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


def main(*, leak: bool) -> int:
    ready_r, ready_w = os.pipe()
    stop_r, stop_w = os.pipe()
    if os.fork() == 0:
        os.setsid()
        os.close(ready_r)
        os.close(stop_w)
        if leak:
            os.close(stop_r)
        os.write(ready_w, b"r")
        os.close(ready_w)
        if leak:
            live()
        signal.alarm(LIFE)
        os.read(stop_r, 1)
        os._exit(0)
    os.close(ready_w)
    # stop_w closes when main exits: that is what tells the clean child.
    return 0 if os.read(ready_r, 1) == b"r" else 1


if __name__ == "__main__":
    if sys.argv[1:] not in (["leak"], ["clean"]):
        sys.exit(f"usage: {sys.argv[0]} leak|clean")
    prepare()
    sys.exit(main(leak=sys.argv[1] == "leak"))
