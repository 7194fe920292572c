#!/usr/bin/python3
"""Run every case of the corpus under the oracle and compare with the head of each case.

Usage, as root: check_corpus.py [--repeat N] [--jobs N] [--load] [--grace S] [CASE...]

Each case runs in both modes, as root and as uid 65534, N times in a row. `leak` must leave what
its line "Remains after leak: ..." says, `clean` nothing, and both must exit 0. --load keeps two
busy loops running all the while. Prints a Markdown table of what the oracle saw (not of what the
heads say), each case that was skipped, and each deviation; exits 1 if there was one.

A case whose head says "Needs: ..." is skipped, and that is said, where this is missing. `root` and
`cgroup` are never there as uid 65534. A case that needs `cgroup` runs in a cgroup of its own, made
below that of this process and taken away afterwards with all that the case made below it. Every
run has a TMPDIR of its own, which is taken away, too. Cases in C are compiled first.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ORACLE = Path(__file__).resolve().parent / "oracle.py"
CORPUS = ORACLE.parent.parent / "corpus"
# The program that runs a case. None: its own first line says which. C is compiled.
PROGRAMS = {".py": None, ".sh": None, ".pl": None, ".js": "node", ".java": "java", ".c": "cc"}
COMPILE = ["cc", "-O1", "-Wall", "-Wextra", "-Werror"]
HEAD = r"^(?:#|//) "
REMAINS = re.compile(
    HEAD + r"Remains after leak: (\d+)(?:-(\d+))? alive, (\d+) zombies?\.$", re.MULTILINE
)
NEEDS = re.compile(HEAD + r"Needs: (.*)\.$", re.MULTILINE)
NEED = re.compile(r"root|cgroup|program \S+")
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
# $0 is the cgroup; a process that is started in it needs no hook between fork and exec.
IN_CGROUP = ["/bin/sh", "-c", 'echo "$$" >"$0/cgroup.procs" && exec "$@"']
BUSY = "import signal\nsignal.alarm(1800)\nwhile True: pass"


class Expected(NamedTuple):
    """What may remain after `leak`."""

    alive_least: int
    alive_most: int
    zombies: int


class Case(NamedTuple):
    """One case: its file, how it is called, and what it cannot do without."""

    path: Path
    command: list[str]
    needs: frozenset[str]


class Outcome(NamedTuple):
    """All runs of one case in one mode as one user: what was seen, and what should not be."""

    case: Path
    user: str
    mode: str
    seen: collections.Counter[tuple[int, int, int, int]]
    deviations: list[str]


def expected(case: Path) -> Expected:
    match = REMAINS.search(case.read_text(encoding="utf-8"))
    if match is None:
        sys.exit(f"{case.name}: no line 'Remains after leak: N alive, M zombies.'")
    least, most, zombies = match.groups()
    return Expected(int(least), int(most or least), int(zombies))


def needs(case: Path) -> frozenset[str]:
    found = set(NEEDS.findall(case.read_text(encoding="utf-8")))
    if wrong := [need for need in found if NEED.fullmatch(need) is None]:
        sys.exit(f"{case.name}: cannot read: Needs: {wrong[0]}.")
    if program := PROGRAMS[case.suffix]:
        found.add(f"program {program}")
    return frozenset(found)


def own_cgroup() -> Path | None:
    """The cgroup (version 2) of this process, if a cgroup can be made below it."""
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    points = [line.split()[4] for line in mounts if " - cgroup2 " in line]
    paths = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    own = [line.removeprefix("0::/") for line in paths if line.startswith("0::/")]
    if not points or not own:
        return None
    directory = Path(points[0]) / own[0]
    return directory if os.access(directory / "cgroup.procs", os.W_OK) else None


def missing(case: Case, user: str) -> str | None:
    """What the case needs and this user does not have here."""
    for need in sorted(case.needs):
        if need in ("root", "cgroup"):
            if user != "root":
                return need
            if need == "cgroup" and own_cgroup() is None:
                return "cgroup"
        elif shutil.which(need.removeprefix("program ")) is None:
            return need
    return None


def prepared(path: Path, binaries: Path) -> Case:
    """The case with its command; C is compiled, if there is a compiler."""
    command = [str(path)]
    if path.suffix == ".c":
        command = [str(binaries / path.stem)]
        if shutil.which(COMPILE[0]) is not None:
            subprocess.run([*COMPILE, "-o", *command, str(path)], check=True)
    elif program := PROGRAMS[path.suffix]:
        command = [program, str(path)]
    return Case(path, command, needs(path))


@contextlib.contextmanager
def fresh_cgroup() -> Iterator[Path]:
    """A cgroup below our own; in the end it goes, with all below it."""
    parent = own_cgroup()
    if parent is None:
        raise FileNotFoundError("no cgroup (version 2) that can be written to")
    directory = Path(tempfile.mkdtemp(prefix="headcount-corpus-", dir=parent))
    try:
        yield directory
    finally:
        await_empty(directory)
        for path, _, _ in os.walk(directory, topdown=False):
            os.rmdir(path)


def await_empty(cgroup: Path) -> None:
    """Until nothing lives in a cgroup or below it: those that are left are just dying."""
    deadline = time.monotonic() + 10
    with open(cgroup / "cgroup.events", encoding="ascii") as events:
        poll = select.poll()
        # Reported whenever the file has changed since it was last read.
        poll.register(events, select.POLLPRI)
        while "populated 1" in events.read() and time.monotonic() < deadline:
            poll.poll(1000)
            events.seek(0)


def deviation(report: dict[str, Any], want: Expected) -> bool:
    return (
        report["exit"] != 0
        or report["alive_min"] < want.alive_least
        or report["alive_max"] > want.alive_most
        or report["zombies_min"] != want.zombies
        or report["zombies_max"] != want.zombies
    )


def run(case: Case, mode: str, user: str, repeat: int, grace: float) -> Outcome:
    want = expected(case.path) if mode == "leak" else Expected(0, 0, 0)
    seen: collections.Counter[tuple[int, int, int, int]] = collections.Counter()
    deviations: list[str] = []
    for number in range(1, repeat + 1):
        where = f"{case.path.name} {mode} as {user}, run {number}"
        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="hc"))
            os.chmod(temporary, 0o1777)
            prefix: list[str] = []
            if "cgroup" in case.needs:
                prefix = [*IN_CGROUP, str(stack.enter_context(fresh_cgroup()))]
            # In a file: on stdout, what a case prints (a JVM warns there) would get in between.
            line = Path(temporary, "oracle.json")
            oracle = [str(ORACLE), "--grace", str(grace), "--out", str(line)]
            # cwd / is one that uid 65534 cannot write to.
            result = subprocess.run(
                [*prefix, *USERS[user], *oracle, "--", *case.command, mode],
                cwd="/",
                env={**os.environ, "TMPDIR": temporary},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            counted = line.read_text(encoding="utf-8") if line.exists() else ""
            left = set(os.listdir(temporary)) - {line.name}
        if left and mode == "clean":
            deviations.append(f"{where}: left {sorted(left)} in TMPDIR")
        if result.returncode != 0 or result.stderr:
            deviations.append(f"{where}: oracle exit {result.returncode}: {result.stderr.strip()}")
            continue
        report = json.loads(counted)
        seen[
            report["alive_min"], report["alive_max"], report["zombies_min"], report["zombies_max"]
        ] += 1
        if deviation(report, want):
            deviations.append(f"{where}: {counted.strip()}")
    return Outcome(case.path, user, mode, seen, deviations)


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
    found = sorted(path for path in CORPUS.iterdir() if path.suffix in PROGRAMS)
    paths = [path.resolve() for path in options.cases] or found

    skipped: list[str] = []
    with contextlib.ExitStack() as stack:
        binaries = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hc")))
        binaries.chmod(0o755)
        cases = [prepared(path, binaries) for path in paths]
        stack.enter_context(busy_loops(2 if options.load else 0))
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(options.jobs))
        futures: list[concurrent.futures.Future[Outcome]] = []
        for case in cases:
            for user in USERS:
                if need := missing(case, user):
                    skipped.append(f"{case.path.name} as {user}: needs {need}")
                    continue
                futures += [
                    pool.submit(run, case, mode, user, options.repeat, options.grace)
                    for mode in ("leak", "clean")
                ]
        outcomes = [future.result() for future in futures]

    print("| case | mode | users | alive | zombies | runs |\n|---|---|---|---|---|---|")
    for path in paths:
        for mode in ("leak", "clean"):
            of_case = [
                outcome for outcome in outcomes if (outcome.case, outcome.mode) == (path, mode)
            ]
            seen: collections.Counter[tuple[int, int, int, int]] = collections.Counter()
            for outcome in of_case:
                seen.update(outcome.seen)
            users = ", ".join(outcome.user for outcome in of_case) or "none"
            print(f"| {path.name} | {mode} | {users} | {summary(seen)} | {seen.total()} |")
    for line in skipped:
        print(f"SKIPPED {line}")
    deviations = [line for outcome in outcomes for line in outcome.deviations]
    for line in deviations:
        print(f"DEVIATION {line}")
    return 1 if deviations else 0


if __name__ == "__main__":
    sys.exit(main())
