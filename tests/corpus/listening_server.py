#!/usr/bin/python3
# Leaks: a server that listens on 127.0.0.1, on a port the system chose, and on a unix socket in
#   the abstract namespace (which has no file anywhere).
# Remains after leak: 1 alive, 0 zombies.
# Missed by: a detector that looks for known ports or for socket files; and where nobody looks,
#   this is the leak that makes the next run fail with "address already in use".

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
from typing import NoReturn

LIFE = 120


def prepare() -> None:
    # Dying of SIGPIPE would look like being cleaned up; a caller that ignores SIGCHLD would
    # break waitpid. The alarm bounds the main process only: fork does not inherit it.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.alarm(30)


def server(*, leak: bool, ready_w: int, stop_r: int) -> NoReturn:
    signal.alarm(LIFE)
    selector = selectors.DefaultSelector()
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    tcp.bind(("127.0.0.1", 0))
    unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The abstract namespace belongs to the network namespace, where many runs may be at once and
    # each have the same pid in their own pid namespace: so chance is in the name, too.
    unix.bind(b"\0headcount-corpus-%d-%s" % (os.getpid(), os.urandom(8).hex().encode()))
    for listener in (tcp, unix):
        listener.listen(16)
        selector.register(listener, selectors.EVENT_READ)
    if leak:
        os.close(stop_r)
    else:
        selector.register(stop_r, selectors.EVENT_READ)
    os.write(ready_w, b"r")
    os.close(ready_w)
    # SIGALRM bounds this loop.
    while True:
        for key, _ in selector.select():
            if isinstance(key.fileobj, socket.socket):
                connection, _ = key.fileobj.accept()
                connection.close()
            else:
                os._exit(0)


def main(*, leak: bool) -> int:
    ready_r, ready_w = os.pipe()
    stop_r, stop_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ready_r)
        os.close(stop_w)
        server(leak=leak, ready_w=ready_w, stop_r=stop_r)
    os.close(ready_w)
    os.close(stop_r)
    if os.read(ready_r, 1) != b"r":
        return 1
    if not leak:
        os.close(stop_w)
        os.waitpid(pid, 0)
    return 0


if __name__ == "__main__":
    if sys.argv[1:] not in (["leak"], ["clean"]):
        sys.exit(f"usage: {sys.argv[0]} leak|clean")
    prepare()
    sys.exit(main(leak=sys.argv[1] == "leak"))
