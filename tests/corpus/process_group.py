#!/usr/bin/python3
# Leaks: a child in its own process group (same session), with two children of its own in it.
# Remains after leak: 3 alive, 0 zombies.
# Missed by: a detector that ends the process group of CMD (killpg): this is another group. Also
#   by one that ends only the direct child: its two children live on.

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

CHILDREN = 2
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


def leader(*, leak: bool, ready_w: int, stop_r: int) -> NoReturn:
    os.setpgid(0, 0)
    pids: list[int] = []
    for _ in range(CHILDREN):
        pid = os.fork()
        if pid == 0:
            os.close(ready_w)
            os.close(stop_r)
            live()
        pids.append(pid)
    if leak:
        os.close(stop_r)
    os.write(ready_w, b"r")
    os.close(ready_w)
    if leak:
        live()
    signal.alarm(LIFE)
    os.read(stop_r, 1)
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
    os._exit(0)


def main(*, leak: bool) -> int:
    ready_r, ready_w = os.pipe()
    stop_r, stop_w = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ready_r)
        os.close(stop_w)
        leader(leak=leak, ready_w=ready_w, stop_r=stop_r)
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
