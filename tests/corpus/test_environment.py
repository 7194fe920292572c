#!/usr/bin/python3
# Leaks: a sleep that has PYTEST_CURRENT_TEST="tests/test_api.py::test_serves (call)" in its
#   environment, as everything has that a pytest test starts.
# Remains after leak: 1 alive, 0 zombies.
# Missed by: no detector, as a leak; but one that reports pid and name only does not tell which
#   test left it, though the process itself says so.

from __future__ import annotations

import os
import signal
import sys


def prepare() -> None:
    # Dying of SIGPIPE would look like being cleaned up; a caller that ignores SIGCHLD would
    # break waitpid. The alarm bounds the main process only: fork does not inherit it.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.alarm(30)


def main(*, leak: bool) -> int:
    # posix_spawn returns when the exec is done: the environment is in place.
    child = os.posix_spawn(
        "/bin/sleep",
        ["sleep", "120"],
        {**os.environ, "PYTEST_CURRENT_TEST": "tests/test_api.py::test_serves (call)"},
    )
    if not leak:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
    return 0


if __name__ == "__main__":
    if sys.argv[1:] not in (["leak"], ["clean"]):
        sys.exit(f"usage: {sys.argv[0]} leak|clean")
    prepare()
    sys.exit(main(leak=sys.argv[1] == "leak"))
