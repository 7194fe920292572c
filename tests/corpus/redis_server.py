#!/usr/bin/python3
# Leaks: a redis-server that daemonized itself and listens on a Unix socket, on no port.
# Remains after leak: 1 alive, 0 zombies.
# Needs: program redis-server.
# Needs: program redis-cli.
# Missed by: a detector that walks the tree of parents, or ends process group or session (it is a
#   daemon), one that looks for known ports, and one that matches argv: it has rewritten its own.
# It has no end of its own: where nobody ends it, it stays.

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIGURATION = """
daemonize yes
port 0
unixsocket {folder}/socket
pidfile {folder}/pid
dir {folder}
save ""
"""


def prepare() -> None:
    # Dying of SIGPIPE would look like being cleaned up; a caller that ignores SIGCHLD would
    # break waitpid. The alarm bounds the main process only: fork does not inherit it.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.alarm(30)


def ask(path: str, question: bytes) -> bytes:
    """Its answer; b"" as long as it does not listen."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return b""
        connection.sendall(question)
        return connection.recv(100)


def main(*, leak: bool) -> int:
    folder = Path(tempfile.mkdtemp(prefix="hc"))
    address = str(folder / "socket")
    configuration = folder / "configuration"
    configuration.write_text(CONFIGURATION.format(folder=folder), encoding="utf-8")
    subprocess.run(
        ["redis-server", configuration],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    # It goes to the background before it listens, and tells nobody when it does; main has its
    # alarm, too. It writes its pid file before.
    deadline = time.monotonic() + 20
    while ask(address, b"PING\r\n") != b"+PONG\r\n":
        if time.monotonic() > deadline:
            return 1
        os.sched_yield()
    if not leak:
        server = os.pidfd_open(int((folder / "pid").read_text(encoding="utf-8")))
        subprocess.run(["redis-cli", "-s", address, "shutdown", "nosave"], check=True)
        select.select([server], [], [])  # readable once it is gone
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    if sys.argv[1:] not in (["leak"], ["clean"]):
        sys.exit(f"usage: {sys.argv[0]} leak|clean")
    prepare()
    sys.exit(main(leak=sys.argv[1] == "leak"))
