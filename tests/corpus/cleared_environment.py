#!/usr/bin/python3
# Leaks: double fork, setsid, then execve of sleep with an EMPTY environment.
# Remains after leak: 1 alive, 0 zombies.
# Missed by: a detector that marks CMD with an environment variable and looks for it in
#   /proc/*/environ (as CI runners do), or one that works by LD_PRELOAD: neither variable is
#   there after this execve. The tree of parents, group and session do not lead to it either.

from __future__ import annotations

import os
import signal
import sys

LIFE = 120


def prepare() -> None:
    # Dying of SIGPIPE would look like being cleaned up; a caller that ignores SIGCHLD would
    # break waitpid. The alarm bounds the main process only: fork does not inherit it.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.alarm(30)


def main(*, leak: bool) -> int:
    # Python's pipes close on exec: the end of file on exec_r says that execve is done, a byte
    # that it failed.
    exec_r, exec_w = os.pipe()
    stop_r, stop_w = os.pipe()
    gone_r, gone_w = os.pipe()
    first = os.fork()
    if first == 0:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        try:
            if leak:
                os.execve("/bin/sleep", ["sleep", str(LIFE)], {})
            # Ends at the end of file on stdin; keeps gone_w open until it is gone.
            os.dup2(stop_r, 0)
            os.set_inheritable(gone_w, True)
            signal.alarm(LIFE)
            os.execve("/bin/cat", ["cat"], {})
        except OSError:
            os.write(exec_w, b"!")
        os._exit(1)
    for descriptor in (exec_w, stop_r, gone_w):
        os.close(descriptor)
    os.waitpid(first, 0)
    if os.read(exec_r, 1) != b"":
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
