#!/usr/bin/python3
# Leaks: a process whose main thread has exited (by the raw system call) while another thread
#   lives on. /proc/PID/stat says state Z; /proc/PID/task has one live task.
# Remains after leak: 1 alive, 0 zombies.
# Missed by: a detector that takes state Z in /proc/PID/stat or status for dead. The process runs
#   on, has its memory and descriptors, and cannot be reaped (waitpid says nothing).

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
import threading
import time
from typing import NoReturn

LIFE = 120
SYS_EXIT = {"x86_64": 60, "aarch64": 93}


def prepare() -> None:
    # Dying of SIGPIPE would look like being cleaned up; a caller that ignores SIGCHLD would
    # break waitpid. The alarm bounds the main process only: fork does not inherit it.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.alarm(30)


def state(path: str) -> str:
    """The state letter of a stat file: the first field after the name, which is in brackets."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()[0]


def main_thread_is_gone(pid: int) -> bool:
    if state(f"/proc/{pid}/stat") != "Z":
        return False
    others = [task for task in os.listdir(f"/proc/{pid}/task") if task != str(pid)]
    return any(state(f"/proc/{pid}/task/{task}/stat") not in "ZX" for task in others)


def second_thread(stop_r: int | None) -> None:
    if stop_r is None:
        time.sleep(LIFE)
    else:
        os.read(stop_r, 1)
    os._exit(0)


def child(stop_r: int | None) -> NoReturn:
    signal.alarm(LIFE)
    threading.Thread(target=second_thread, args=(stop_r,), daemon=True).start()
    # Only this thread ends: ctypes lets go of the interpreter lock before the call, and the C
    # library's exit, which would end them all, is not involved.
    ctypes.CDLL(None).syscall(SYS_EXIT[platform.machine()], 0)
    os._exit(1)


def main(*, leak: bool) -> int:
    stop_r, stop_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(stop_w)
        if leak:
            os.close(stop_r)
        child(None if leak else stop_r)
    os.close(stop_r)
    # No pipe or wait tells of this state, so it has to be looked for; main has its alarm, too.
    deadline = time.monotonic() + 20
    while not main_thread_is_gone(pid):
        if time.monotonic() > deadline:
            return 1
        os.sched_yield()
    if not leak:
        os.close(stop_w)
        os.waitpid(pid, 0)
    return 0


if __name__ == "__main__":
    if sys.argv[1:] not in (["leak"], ["clean"]):
        sys.exit(f"usage: {sys.argv[0]} leak|clean")
    prepare()
    sys.exit(main(leak=sys.argv[1] == "leak"))
