#!/usr/bin/python3
# Leaks: 300 children at once (fork only, no exec).
# Remains after leak: 300 alive, 0 zombies.
# Missed by: a detector with a fixed buffer or a cut-off list, and one that ends them one by one
#   with a wait for each: its time is over before the last one.

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

CHILDREN = 300
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
    pids: list[int] = []
    for _ in range(CHILDREN):
        pid = os.fork()
        if pid == 0:
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
        pids.append(pid)
    os.close(ready_w)
    os.close(stop_r)
    ready = 0
    # Each has written its byte and closed its end, or died and closed it: this ends either way.
    while chunk := os.read(ready_r, CHILDREN):
        ready += len(chunk)
    if not leak:
        os.close(stop_w)
        for pid in pids:
            os.waitpid(pid, 0)
    return 0 if ready == CHILDREN else 1


if __name__ == "__main__":
    if sys.argv[1:] not in (["leak"], ["clean"]):
        sys.exit(f"usage: {sys.argv[0]} leak|clean")
    prepare()
    sys.exit(main(leak=sys.argv[1] == "leak"))
