#!/usr/bin/python3
# Leaks: a shell started by posix_spawn (no fork of the program's own) that starts two sleeps in
#   the background and stays.
# Remains after leak: 3 alive, 0 zombies.
# Missed by: a detector that hooks fork (os.fork, subprocess.Popen, multiprocessing, a preloaded
#   fork()): posix_spawn is a clone with CLONE_VFORK and goes past it. Also by one that knows only
#   the direct children: the sleeps are grandchildren.

from __future__ import annotations

import os
import signal
import sys

# stdin is the stop pipe, descriptor 3 the ready pipe; the sleeps get neither. `wait` ends with
# the sleeps, so the shell's life is bounded by theirs.
LEAK = """
trap '' PIPE
exec </dev/null
sleep 120 3>&- & sleep 120 3>&- &
echo r >&3
exec 3>&-
wait
"""
CLEAN = """
trap '' PIPE
sleep 120 3>&- & first=$!
sleep 120 3>&- & second=$!
echo r >&3
exec 3>&-
read -r nothing
kill "$first" "$second"
wait
exit 0
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
    stop_r, stop_w = os.pipe()
    child = os.posix_spawn(
        "/bin/sh",
        ["sh", "-c", LEAK if leak else CLEAN],
        os.environ,
        # Python's pipes close on exec, the copies do not. stdin first: in the usual case 3 is
        # ready_r, which the child does not need, so nothing of use is overwritten.
        file_actions=[
            (os.POSIX_SPAWN_DUP2, stop_r, 0),
            (os.POSIX_SPAWN_DUP2, ready_w, 3),
        ],
    )
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
