#!/usr/bin/python3
"""Count what a command leaves behind, without any code of the detector under test.

The oracle runs as init (pid 1) of a fresh pid namespace which has its own /proc. So the kernel
itself bounds the question: every process CMD leaves behind is in this namespace, none can get
out of it, and each one that loses its parent becomes a child of the oracle. When the oracle
exits, the kernel ends all that is left.

How to call it:
  root:       unshare --pid --fork --mount-proc --kill-child -- \\
                  /usr/bin/python3 oracle.py -- CASE leak
  uid 65534:  unshare --user --map-root-user --pid --fork --mount-proc --kill-child -- \\
                  /usr/bin/python3 oracle.py -- CASE leak

What it does: starts CMD, waits for it while it reaps adopted children, then blocks on SIGCHLD
until no other process is left or the grace is over. Then it takes up to 50 samples of
/proc/*/status and /proc/*/task/*/status, back to back, and reports the smallest and the largest
count, since a leak that re-forks itself all the time is two processes for an instant.
  alive:   processes other than pid 1 with at least one task in a state other than Z and X
           (the state of the main thread alone says nothing: it can be gone, the process not)
  zombies: processes all of whose tasks are Z, and whose parent is not pid 1

Prints one JSON line (to stdout, or FILE with --out):
  {"exit":0,"signal":null,"alive_min":1,"alive_max":1,"zombies_min":0,"zombies_max":0,
   "processes":[{"pid":2,"ppid":1,"name":"sleep","state":"S"}]}
"processes" is the sample with the most processes; "state" is that of a live task if there is one.

Exit status: 0 counted (whatever the count), 2 not pid 1 / wrong use / CMD cannot be started,
3 CMD did not end within --timeout.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from typing import NamedTuple, NoReturn

SAMPLES = 50
# Bounds the sampling when the table of processes is large or never holds still.
ATTEMPTS = 2000
SAMPLING_SECONDS = 3.0
DEAD = frozenset("ZX")


class Process(NamedTuple):
    """One process, as a sample saw it."""

    pid: int
    ppid: int
    name: str
    state: str
    alive: bool


class Sample(NamedTuple):
    """All processes but pid 1; torn if one came or went while it was taken."""

    processes: list[Process]
    torn: bool

    def alive(self) -> int:
        return sum(process.alive for process in self.processes)

    def zombies(self) -> int:
        return sum(not process.alive for process in self.processes)


def fail(status: int, message: str) -> NoReturn:
    print(f"oracle: {message}", file=sys.stderr, flush=True)
    # os._exit: nothing to tidy up, and the kernel ends the namespace with its init.
    os._exit(status)


def numeric_entries(directory: str) -> list[int]:
    return [int(name) for name in os.listdir(directory) if name.isdecimal()]


def other_pids() -> list[int]:
    return [pid for pid in numeric_entries("/proc") if pid != 1]


def read_status(path: str) -> dict[str, str]:
    """The fields of a status file. The kernel escapes a newline in Name, so lines are safe."""
    with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
        text = file.read()
    fields: dict[str, str] = {}
    for line in text.split("\n"):
        key, separator, value = line.partition(":")
        if separator:
            fields.setdefault(key, value.strip())
    return fields


def read_process(pid: int) -> Process | None:
    """One process from /proc, or None if it is gone."""
    try:
        fields = read_status(f"/proc/{pid}/status")
        tasks = numeric_entries(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError):
        return None
    states: list[str] = []
    for task in tasks:
        try:
            states.append(read_status(f"/proc/{pid}/task/{task}/status")["State"][:1])
        except (FileNotFoundError, ProcessLookupError, KeyError):
            continue
    live = [state for state in states if state not in DEAD]
    # No task, or only X: the kernel is just taking it away, it is neither alive nor a zombie.
    if not live and "Z" not in states:
        return None
    return Process(
        pid=pid,
        ppid=int(fields["PPid"]),
        name=fields["Name"],
        state=live[0] if live else "Z",
        alive=bool(live),
    )


def reap() -> dict[int, int]:
    """Reap all that is dead; their wait statuses by pid."""
    statuses: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return statuses
        if pid == 0:
            return statuses
        statuses[pid] = status


def wait_sigchld(deadline: float) -> bool:
    """Block until a child changed or the deadline is there; False when it is over.

    SIGCHLD is blocked throughout, so one that came since the last reap() is pending and this
    returns at once: no wake-up is lost.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        return False
    signal.sigtimedwait({signal.SIGCHLD}, left)
    return True


def take_sample() -> Sample:
    reap()
    before = other_pids()
    processes: list[Process] = []
    torn = False
    for pid in before:
        process = read_process(pid)
        if process is None:
            torn = True
        elif not process.alive and process.ppid == 1:
            # Died since reap() above: init's own, reaped at the next round, not left by anyone.
            torn = True
        else:
            processes.append(process)
    return Sample(processes, torn or before != other_pids())


def take_samples() -> list[Sample]:
    """Up to SAMPLES untorn samples.

    A torn one is a photograph of no single instant: while /proc is listed a re-forker can step
    from a pid not yet read to one no longer listed and so be counted as none. Only if there is
    nothing but torn ones are they better than nothing.
    """
    whole: list[Sample] = []
    torn: list[Sample] = []
    deadline = time.monotonic() + SAMPLING_SECONDS
    for _ in range(ATTEMPTS):
        sample = take_sample()
        (torn if sample.torn else whole).append(sample)
        if len(whole) == SAMPLES or time.monotonic() > deadline:
            break
    return whole or torn


def parse_arguments(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="oracle.py", usage="%(prog)s [--grace S] [--timeout S] [--out FILE] -- CMD ARGS..."
    )
    parser.add_argument("--grace", type=float, default=1.0)
    parser.add_argument("--timeout", type=float, default=60.0)
    parser.add_argument("--out")
    # Split here, not in argparse: what follows the first "--" belongs to CMD, to the letter.
    split = argv.index("--") if "--" in argv else len(argv)
    options = parser.parse_args(argv[:split])
    command = argv[split + 1 :]
    if not command:
        parser.error("no command: put it after --")
    return options, command


def main() -> None:
    options, command = parse_arguments(sys.argv[1:])
    if os.getpid() != 1:
        fail(2, "must be pid 1 of its own pid namespace (see the head of this file for unshare)")
    if os.readlink("/proc/self") != "1":
        fail(2, "/proc is not that of this pid namespace (unshare needs --mount-proc)")

    # SIGCHLD must not be ignored (the kernel would reap by itself) and stays blocked for
    # sigtimedwait. Python ignores SIGPIPE; CMD gets the default back and the mask we came with.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    try:
        child = os.posix_spawnp(
            command[0],
            command,
            os.environ,
            setsigmask=old_mask,
            setsigdef=[signal.SIGPIPE],
        )
    except OSError as error:
        fail(2, f"cannot start {command[0]}: {error.strerror}")

    deadline = time.monotonic() + options.timeout
    while True:
        statuses = reap()
        if child in statuses:
            code = os.waitstatus_to_exitcode(statuses[child])
            break
        if not wait_sigchld(deadline):
            fail(3, f"{command[0]} did not end within {options.timeout} s")

    deadline = time.monotonic() + options.grace
    while other_pids() and wait_sigchld(deadline):
        reap()

    samples = take_samples()
    alive = [sample.alive() for sample in samples]
    zombies = [sample.zombies() for sample in samples]
    most = max(samples, key=lambda sample: len(sample.processes))
    line = json.dumps(
        {
            "exit": code if code >= 0 else None,
            "signal": -code if code < 0 else None,
            "alive_min": min(alive),
            "alive_max": max(alive),
            "zombies_min": min(zombies),
            "zombies_max": max(zombies),
            "processes": [
                {
                    "pid": process.pid,
                    "ppid": process.ppid,
                    "name": process.name,
                    "state": process.state,
                }
                for process in most.processes
            ],
        },
        separators=(",", ":"),
    )
    if options.out is None:
        print(line, flush=True)
    else:
        with open(options.out, "w", encoding="utf-8") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    main()
