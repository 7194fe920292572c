#!/usr/bin/python3
# Leaks: one of 20 children that all wait for the pipe of main to close. 19 exit at once when it
#   does, nobody waits for them; one ignores it and stays.
# Remains after leak: 1 alive, 0 zombies.
# Missed by: nothing is missed in leak, but there and in clean a detector without a grace, which
#   counts at the instant main exits, calls up to 20 (19) processes a leak that end by themselves
#   a moment later; and one that forgives the whole of such a crowd lets the one that stays go.
# The clean twin: all 20 exit at once after main has. That short tail is no leak.

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

CHILDREN = 20
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
    for number in range(CHILDREN):
        if os.fork() == 0:
            os.close(ready_r)
            # Before it reports: main's must be the only other end when main exits.
            os.close(stop_w)
            os.write(ready_w, b"r")
            os.close(ready_w)
            signal.alarm(LIFE)
            os.read(stop_r, 1)
            if leak and number == CHILDREN // 2:
                os.close(stop_r)
                live()
            os._exit(0)
    os.close(ready_w)
    ready = 0
    # Each has written its byte and closed its end, or died and closed it: this ends either way.
    while chunk := os.read(ready_r, CHILDREN):
        ready += len(chunk)
    # stop_w closes when main exits: that is what tells them.
    return 0 if ready == CHILDREN else 1


if __name__ == "__main__":
    if sys.argv[1:] not in (["leak"], ["clean"]):
        sys.exit(f"usage: {sys.argv[0]} leak|clean")
    prepare()
    sys.exit(main(leak=sys.argv[1] == "leak"))
