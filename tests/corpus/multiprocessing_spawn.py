#!/usr/bin/python3
# Leaks: what multiprocessing (start method "spawn") leaves when the main process ends by
#   os._exit: a child that is no daemon, for which nobody waits now, and the resource tracker.
# Remains after leak: 2 alive, 0 zombies.
# Missed by: a detector that knows only what the program started itself: the tracker is the doing
#   of the library. It ends by itself, but not before the child, which holds the other end of its
#   pipe.
# The clean twin: the tracker ends just after main, when it sees that pipe close, and nobody waits
# for it: that is how the library does it. Such a short tail is no leak.

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from multiprocessing.connection import Connection

LIFE = 120


def prepare() -> None:
    # Dying of SIGPIPE would look like being cleaned up; a caller that ignores SIGCHLD would
    # break waitpid. The alarm bounds the main process only: fork does not inherit it.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.alarm(30)


def work(connection: Connection) -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.alarm(LIFE)
    connection.send("ready")
    try:
        connection.recv()
    except EOFError:
        # Main is gone and has not said that it is over: a worker that does not care.
        while True:
            signal.pause()


def main(*, leak: bool) -> int:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs,), daemon=False)
    process.start()
    # Only the child's copy is left, so its end ends ours.
    theirs.close()
    if ours.recv() != "ready":
        return 1
    if leak:
        # A return would wait for the child, as it is no daemon.
        os._exit(0)
    ours.send("over")
    process.join()
    return 0


if __name__ == "__main__":
    if sys.argv[1:] not in (["leak"], ["clean"]):
        sys.exit(f"usage: {sys.argv[0]} leak|clean")
    prepare()
    sys.exit(main(leak=sys.argv[1] == "leak"))
