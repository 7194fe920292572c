#!/usr/bin/python3
# Leaks: a detached tmux session: the server, a shell in a terminal of its own, and its sleep.
# Remains after leak: 3 alive, 0 zombies.
# Needs: program tmux.
# Missed by: a detector that walks the tree of parents (the server is a daemon), and one that ends
#   process group or session, even if it knows the server's: the shell has its own. If it ends
#   the server, the kernel hangs up the shell's terminal: the two others end by themselves soon,
#   but later.
# The server ends with its last shell, which ends after 120 s.

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

SHELL = 'exec 3>"$0"; echo r >&3; sleep 120; exit'


def prepare() -> None:
    # Dying of SIGPIPE would look like being cleaned up; a caller that ignores SIGCHLD would
    # break waitpid. The alarm bounds the main process only: fork does not inherit it.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.alarm(30)


def tmux(folder: Path, *arguments: str) -> str:
    # -f: not what the user has configured.
    return subprocess.run(
        ["tmux", "-f", "/dev/null", "-S", folder / "socket", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


def main(*, leak: bool) -> int:
    folder = Path(tempfile.mkdtemp(prefix="hc"))
    os.mkfifo(folder / "pipe")
    # Nonblocking, since nobody writes yet. The shell and its sleep hold the other end.
    pipe = os.open(folder / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    tmux(folder, "new-session", "-d", "sh", "-c", SHELL, str(folder / "pipe"))
    select.select([pipe], [], [])
    if os.read(pipe, 10) != b"r\n":
        return 1
    if not leak:
        server = os.pidfd_open(int(tmux(folder, "display-message", "-p", "#{pid}")))
        tmux(folder, "kill-server")
        select.select([server], [], [])  # readable once it is gone
        select.select([pipe], [], [])  # at its end once both are gone
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    if sys.argv[1:] not in (["leak"], ["clean"]):
        sys.exit(f"usage: {sys.argv[0]} leak|clean")
    prepare()
    sys.exit(main(leak=sys.argv[1] == "leak"))
