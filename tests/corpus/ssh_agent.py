#!/usr/bin/python3
# Leaks: an ssh-agent, started as in `eval "$(ssh-agent -a SOCKET)"`, that nobody ends.
# Remains after leak: 1 alive, 0 zombies.
# Needs: program ssh-agent.
# Missed by: a detector that walks the tree of parents, or ends process group or session (it is a
#   daemon), and one that waits for the end of file on the stdout and stderr of CMD. Also,
#   where ssh-agent is set-gid (as in Debian), by one that reads its environ without privileges,
#   and one that relies on LD_PRELOAD: the loader ignores it there.
# It has no end of its own: where nobody ends it, it stays.

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path


def prepare() -> None:
    # Dying of SIGPIPE would look like being cleaned up; a caller that ignores SIGCHLD would
    # break waitpid. The alarm bounds the main process only: fork does not inherit it.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.alarm(30)


def output(*command: str) -> str:
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def main(*, leak: bool) -> int:
    # Set-gid, it would not see TMPDIR: so the place of its socket is said.
    folder = Path(tempfile.mkdtemp(prefix="hc"))
    # It prints the variables once it listens.
    said = output("ssh-agent", "-s", "-a", str(folder / "socket"))
    variables = dict(re.findall(r"^(\w+)=([^;]*);", said, re.MULTILINE))
    if not leak:
        os.environ.update(variables)
        agent = os.pidfd_open(int(variables["SSH_AGENT_PID"]))
        output("ssh-agent", "-k")
        select.select([agent], [], [])  # readable once it is gone
        folder.rmdir()
    return 0


if __name__ == "__main__":
    if sys.argv[1:] not in (["leak"], ["clean"]):
        sys.exit(f"usage: {sys.argv[0]} leak|clean")
    prepare()
    sys.exit(main(leak=sys.argv[1] == "leak"))
