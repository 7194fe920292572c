#!/usr/bin/python3
# Leaks: a daemon (double fork, setsid) that goes to the root cgroup of the cgroup2 hierarchy and
#   then becomes another program with an empty environment and its stdio at /dev/null.
# Remains after leak: 1 alive, 0 zombies.
# Needs: root.
# Needs: cgroup.
# Missed by: a detector with a cgroup, a marker in the environment, and the tree of parents, as
#   far as it looks once CMD is gone: by then none of the three leads to this process. What it
#   cannot undo is that a subreaper becomes its parent.

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import NoReturn


def prepare() -> None:
    # Dying of SIGPIPE would look like being cleaned up; a caller that ignores SIGCHLD would
    # break waitpid. The alarm bounds the main process only: fork does not inherit it.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.alarm(30)


def root_cgroup() -> Path:
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        if " - cgroup2 " in line:
            return Path(line.split()[4])
    sys.exit("no cgroup2 hierarchy is mounted")


def daemon(root: Path, said_w: int) -> NoReturn:
    try:
        (root / "cgroup.procs").write_text(str(os.getpid()), encoding="utf-8")
        null = os.open("/dev/null", os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.write(said_w, b"%d\n" % os.getpid())
        # said_w closes at the exec; gone_w, which clean passes on, only when the process ends.
        os.execve("/bin/sleep", ["sleep", "120"], {})
    finally:
        os.write(said_w, b"failed")
        os._exit(1)


def main(*, leak: bool) -> int:
    root = root_cgroup()
    said_r, said_w = os.pipe()
    gone_r, gone_w = os.pipe()
    os.set_inheritable(gone_w, not leak)
    first = os.fork()
    if first == 0:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        daemon(root, said_w)
    os.close(said_w)
    os.close(gone_w)
    os.waitpid(first, 0)
    with open(said_r, encoding="utf-8") as file:
        said = file.read().strip()
    if not said.isdecimal():
        return 1
    if not leak:
        os.kill(int(said), signal.SIGTERM)
        os.read(gone_r, 1)
    return 0


if __name__ == "__main__":
    if sys.argv[1:] not in (["leak"], ["clean"]):
        sys.exit(f"usage: {sys.argv[0]} leak|clean")
    prepare()
    sys.exit(main(leak=sys.argv[1] == "leak"))
