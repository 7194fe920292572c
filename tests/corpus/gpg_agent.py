#!/usr/bin/python3
# Leaks: a gpg-agent, as gpg starts it in the background for a home of its own.
# Remains after leak: 1 alive, 0 zombies.
# Needs: program gpg-agent.
# Needs: program gpg-connect-agent.
# Missed by: a detector that walks the tree of parents, or ends process group or session (it is a
#   daemon), and one that waits for the end of file on the stdout and stderr of CMD.
# It has no end of its own, but it watches its home, and ends where somebody takes that away.

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile


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
    # Its sockets are in there, and their paths must not be longer than 107 bytes.
    home = tempfile.mkdtemp(prefix="hc")
    os.environ["GNUPGHOME"] = home
    # It listens before it goes to the background.
    output("gpg-agent", "--quiet", "--daemon")
    answer = output("gpg-connect-agent", "--no-autostart", "getinfo pid", "/bye")
    match = re.search(r"^D (\d+)$", answer, re.MULTILINE)
    if match is None:
        return 1
    if not leak:
        agent = os.pidfd_open(int(match[1]))
        output("gpg-connect-agent", "--no-autostart", "killagent", "/bye")
        select.select([agent], [], [])  # readable once it is gone
        shutil.rmtree(home)
    return 0


if __name__ == "__main__":
    if sys.argv[1:] not in (["leak"], ["clean"]):
        sys.exit(f"usage: {sys.argv[0]} leak|clean")
    prepare()
    sys.exit(main(leak=sys.argv[1] == "leak"))
