#!/usr/bin/python3
"""How long `headcount audit` and `reap` take with many records of dead runs, and with many processes of one dead run.

Usage: cleanup_scale.py GATE. Prints the time of each, and the time per record or process.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

LEAVE = "for (1 .. $ARGV[0]) { my $pid = fork // die; if (!$pid) { alarm 300; select undef, undef, undef, 300; exit } } exit 0"


def dead_host() -> dict[str, object]:
    """The identity of a process that has ended."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    child = subprocess.Popen(["true"])
    child.wait(60)
    namespace = os.stat("/proc/self/ns/pid").st_ino
    return {"boot_id": boot, "pid_namespace": namespace, "pid": child.pid, "inode": 1, "start_ticks": 1}


def record(state: str, number: int) -> str:
    run = f"{number:032x}"
    folder = os.path.join(state, "runs", run)
    os.makedirs(folder, mode=0o700)
    content = {"schema": "headcount.run/1", "run_id": run, "host": dead_host(), "cgroup": None, "program": "x", "tiers": []}
    with open(os.path.join(folder, "run.json"), "w", encoding="ascii") as file:
        json.dump(content, file)
    return run


def timed(gate: str, state: str, action: str, expected: int) -> float:
    begun = time.monotonic()
    command = [gate, action, "--report", "text=/dev/null"]
    done = subprocess.run(command, env={**os.environ, "HEADCOUNT_STATE_DIR": state}, check=False, timeout=300)
    took = time.monotonic() - begun
    assert done.returncode == expected, done
    return took


def main() -> int:
    gate = sys.argv[1]
    os.umask(0o077)
    for count in (100, 1_000, 10_000):
        with tempfile.TemporaryDirectory(dir="/dev/shm") as state:
            host = dead_host()
            record(state, 0)
            runs = os.path.join(state, "runs")
            with open(os.path.join(runs, f"{0:032x}", "run.json"), encoding="ascii") as file:
                content = json.load(file)
            for number in range(1, count):
                run = f"{number:032x}"
                os.mkdir(os.path.join(runs, run), 0o700)
                with open(os.path.join(runs, run, "run.json"), "w", encoding="ascii") as file:
                    json.dump({**content, "run_id": run, "host": host}, file)
            audit = timed(gate, state, "audit", 0)
            reap = timed(gate, state, "reap", 0)
            assert not os.listdir(runs)
        print(
            f"{count} records: audit {audit * 1e3:.0f} ms ({audit / count * 1e6:.0f} us each), "
            f"reap {reap * 1e3:.0f} ms ({reap / count * 1e6:.0f} us each)",
            flush=True,
        )
    for count in (100, 1_000, 10_000):
        with tempfile.TemporaryDirectory(dir="/dev/shm") as state:
            run = record(state, 7)
            environment = {**os.environ, "HEADCOUNT_TOKEN": run}
            subprocess.run(["perl", "-e", LEAVE, str(count)], env=environment, check=True, timeout=120)
            audit = timed(gate, state, "audit", 23)
            reap = timed(gate, state, "reap", 0)
        print(
            f"{count} processes of a dead run: audit {audit * 1e3:.0f} ms ({audit / count * 1e6:.0f} us each), "
            f"reap {reap * 1e3:.0f} ms ({reap / count * 1e6:.0f} us each)",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
