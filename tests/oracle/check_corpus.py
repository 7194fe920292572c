#!/usr/bin/python3
"""Run every case of the corpus under the oracle and compare with the head of each case.

Usage, as root: check_corpus.py [--repeat N] [--jobs N] [--load] [--grace S] [CASE...]

Each case runs in both modes, as root and as uid 65534, N times in a row. `leak` must leave what
its line "# Remains after leak: ..." says, `clean` nothing, and both must exit 0. --load keeps two
busy loops running all the while. Prints a Markdown table of what the oracle saw (not of what the
heads say) and each deviation; exits 1 if there was one.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ORACLE = Path(__file__).resolve().parent / "oracle.py"
CORPUS = ORACLE.parent.parent / "corpus"
SUFFIXES = (".py", ".sh", ".pl")
REMAINS = re.compile(r"^# Remains after leak: (\d+)(?:-(\d+))? alive, (\d+) zombies?\.$", re.M)
NAMESPACE = ["--pid", "--fork", "--mount-proc", "--kill-child", "--", "/usr/bin/python3"]
UNPRIVILEGED = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--inh-caps=-all",
    "--bounding-set=-all",
]
USERS = {
    "root": ["unshare", *NAMESPACE],
    "65534": [*UNPRIVILEGED, "unshare", "--user", "--map-root-user", *NAMESPACE],
}
BUSY = "import signal\nsignal.alarm(1800)\nwhile True: pass"


class Expected(NamedTuple):
    """What may remain after `leak`."""

    alive_least: int
    alive_most: int
    zombies: int


class Outcome(NamedTuple):
    """All runs of one case in one mode as one user: what was seen, and what should not be."""

    case: Path
    mode: str
    seen: collections.Counter[tuple[int, int, int, int]]
    deviations: list[str]


def expected(case: Path) -> Expected:
    match = REMAINS.search(case.read_text(encoding="utf-8"))
    if match is None:
        sys.exit(f"{case.name}: no line '# Remains after leak: N alive, M zombies.'")
    least, most, zombies = match.groups()
    return Expected(int(least), int(most or least), int(zombies))


def deviation(report: dict[str, Any], want: Expected) -> bool:
    return (
        report["exit"] != 0
        or report["alive_min"] < want.alive_least
        or report["alive_max"] > want.alive_most
        or report["zombies_min"] != want.zombies
        or report["zombies_max"] != want.zombies
    )


def run(case: Path, mode: str, user: str, repeat: int, grace: float) -> Outcome:
    want = expected(case) if mode == "leak" else Expected(0, 0, 0)
    command = [*USERS[user], str(ORACLE), "--grace", str(grace), "--", str(case), mode]
    seen: collections.Counter[tuple[int, int, int, int]] = collections.Counter()
    deviations: list[str] = []
    for number in range(1, repeat + 1):
        # cwd / is one that uid 65534 cannot write to.
        result = subprocess.run(
            command,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        where = f"{case.name} {mode} as {user}, run {number}"
        if result.returncode != 0 or result.stderr:
            deviations.append(f"{where}: oracle exit {result.returncode}: {result.stderr.strip()}")
            continue
        report = json.loads(result.stdout)
        seen[
            report["alive_min"], report["alive_max"], report["zombies_min"], report["zombies_max"]
        ] += 1
        if deviation(report, want):
            deviations.append(f"{where}: {result.stdout.strip()}")
    return Outcome(case, mode, seen, deviations)


@contextlib.contextmanager
def busy_loops(count: int) -> Iterator[None]:
    loops = [subprocess.Popen(["/usr/bin/python3", "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def span(least: int, most: int) -> str:
    return str(least) if least == most else f"{least}-{most}"


def summary(seen: collections.Counter[tuple[int, int, int, int]]) -> str:
    if not seen:
        return "none | none"
    alive = span(min(key[0] for key in seen), max(key[1] for key in seen))
    zombies = span(min(key[2] for key in seen), max(key[3] for key in seen))
    return f"{alive} | {zombies}"


def main() -> int:
    parser = argparse.ArgumentParser(description="run the corpus under the oracle")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--grace", type=float, default=1.0)
    parser.add_argument("--load", action="store_true")
    parser.add_argument("cases", nargs="*", type=Path)
    options = parser.parse_args()
    found = sorted(path for path in CORPUS.iterdir() if path.suffix in SUFFIXES)
    cases = [case.resolve() for case in options.cases] or found

    with (
        busy_loops(2 if options.load else 0),
        concurrent.futures.ThreadPoolExecutor(options.jobs) as pool,
    ):
        futures = [
            pool.submit(run, case, mode, user, options.repeat, options.grace)
            for case in cases
            for mode in ("leak", "clean")
            for user in USERS
        ]
        outcomes = [future.result() for future in futures]

    print("| case | mode | alive | zombies | runs |\n|---|---|---|---|---|")
    for case in cases:
        for mode in ("leak", "clean"):
            seen: collections.Counter[tuple[int, int, int, int]] = collections.Counter()
            for outcome in outcomes:
                if (outcome.case, outcome.mode) == (case, mode):
                    seen.update(outcome.seen)
            print(f"| {case.name} | {mode} | {summary(seen)} | {seen.total()} |")
    deviations = [line for outcome in outcomes for line in outcome.deviations]
    for line in deviations:
        print(f"DEVIATION {line}")
    return 1 if deviations else 0


if __name__ == "__main__":
    sys.exit(main())
