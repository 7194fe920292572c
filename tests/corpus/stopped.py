#!/usr/bin/python3
# Leaks: a child that is stopped by SIGSTOP (state T) when main exits.
# Remains after leak: 1 alive, 0 zombies.
# Missed by: a detector that sends SIGTERM only (it stays pending as long as the process is
#   stopped), one that counts only states R, S and D, and one that waits for a sign of life.
# Two facts of the kernel shape this case:
#   - When main exits, a process group with a stopped member that becomes orphaned gets SIGHUP
#     and SIGCONT, which would end the leak. In its own session the child is spared that.
#   - A stopped process does not act on SIGALRM. So its life is bounded by a POSIX timer whose
#     signal is SIGKILL.

from __future__ import annotations

import ctypes
import os
import signal
import sys

LIFE = 120
CLOCK_MONOTONIC = 1
SIGEV_SIGNAL = 0


class SigEvent(ctypes.Structure):
    """struct sigevent; 64 bytes on the 64-bit architectures."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("padding", ctypes.c_char * 48),
    )


class TimerSpec(ctypes.Structure):
    """struct itimerspec."""

    _fields_ = (
        ("interval_seconds", ctypes.c_long),
        ("interval_nanoseconds", ctypes.c_long),
        ("seconds", ctypes.c_long),
        ("nanoseconds", ctypes.c_long),
    )


def prepare() -> None:
    # Dying of SIGPIPE would look like being cleaned up; a caller that ignores SIGCHLD would
    # break waitpid. The alarm bounds the main process only: fork does not inherit it.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.alarm(30)


def kill_self_after(seconds: int) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    timer = ctypes.c_void_p()
    event = SigEvent(signo=signal.SIGKILL, notify=SIGEV_SIGNAL)
    if libc.timer_create(CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)) != 0:
        return False
    return libc.timer_settime(timer, 0, ctypes.byref(TimerSpec(0, 0, seconds, 0)), None) == 0


def main(*, leak: bool) -> int:
    child = os.fork()
    if child == 0:
        os.setsid()
        if not kill_self_after(LIFE):
            os._exit(1)
        os.kill(os.getpid(), signal.SIGSTOP)
        # Only the clean twin comes here, on SIGCONT.
        os._exit(0)
    _, status = os.waitpid(child, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        return 1
    if not leak:
        os.kill(child, signal.SIGCONT)
        os.waitpid(child, 0)
    return 0


if __name__ == "__main__":
    if sys.argv[1:] not in (["leak"], ["clean"]):
        sys.exit(f"usage: {sys.argv[0]} leak|clean")
    prepare()
    sys.exit(main(leak=sys.argv[1] == "leak"))
