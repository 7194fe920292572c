#!/usr/bin/python3
# Leaks: two cgroups, one in the other, below the cgroup of the main process, with a process in
#   each. The cgroups stay as well: whoever starts this case takes them away.
# Remains after leak: 2 alive, 0 zombies.
# Needs: cgroup.
# Missed by: a detector that reads cgroup.procs of its cgroup only (what is below is not in it;
#   "populated" in cgroup.events and cgroup.kill do cover it), and one that then cannot take its
#   own cgroup away: rmdir says busy as long as there is one below.

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path
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


def own_cgroup() -> Path:
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    points = [line.split()[4] for line in mounts if " - cgroup2 " in line]
    paths = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    own = [line.removeprefix("0::/") for line in paths if line.startswith("0::/")]
    if not points or not own:
        sys.exit("no cgroup2 hierarchy is mounted")
    return Path(points[0]) / own[0]


def main(*, leak: bool) -> int:
    outer = Path(tempfile.mkdtemp(prefix="hc", dir=own_cgroup()))
    inner = outer / "inner"
    inner.mkdir()
    children: list[int] = []
    for cgroup in (outer, inner):
        child = os.fork()
        if child == 0:
            live()
        children.append(child)
        # The kernel moves it at once.
        (cgroup / "cgroup.procs").write_text(str(child), encoding="utf-8")
    if not leak:
        for child in children:
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
        inner.rmdir()
        outer.rmdir()
    return 0


if __name__ == "__main__":
    if sys.argv[1:] not in (["leak"], ["clean"]):
        sys.exit(f"usage: {sys.argv[0]} leak|clean")
    prepare()
    sys.exit(main(leak=sys.argv[1] == "leak"))
