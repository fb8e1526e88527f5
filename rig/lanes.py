"""`python -m rig.lanes`: the test suite in parts, two lanes of them side by side. script/test calls it.

A part is a selection of the tests on one database: tests that start, kill or pause servers, or the others.
Tests with servers wait more than they compute, so a part of them runs beside the others.
A part runs on a process for each core, each with a database and ports of its own.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

PYTEST = (
    *(sys.executable, "-m", "pytest", "-q", "--durations=10", "--durations-min=3"),
    *("-n", "auto", "--maxprocesses=8"),
)
# The servers of a file are started once, since one process runs all its tests.
BY_FILE = "loadfile"
STOP_SECONDS = 20
# pytest's flags without a value, before an m in the same argument: -xm slow, -qvmslow.
FLAGS_AND_MARKS = re.compile(r"(-[hlqsvxV]+)(?=m)")
# Each part names its database itself; without stored bytecode each process compiles all tests and the code again.
UNSET = frozenset({"DATABASE_URL", "PYTHONDONTWRITEBYTECODE"})
WRONG_ARGUMENTS = 4  # pytest's exit status for an unknown option or a path that does not exist
NOT_RUN = "did not run: "  # So begins the line about a test whose peer is missing; the last lines repeat it.
NO_TESTS = 5  # pytest's exit status when the selection is empty


@dataclass(frozen=True)
class Part:
    """A selection of the tests on one database, and pytest-xdist's way to spread it.

    A property test tries *examples* times as many examples as usual.
    """

    name: str
    database: str
    marks: str
    spread: str = "worksteal"
    examples: int = 1


@dataclass
class Run:
    """The result of a part: pytest's exit status, its last line, and the seconds that it took."""

    part: Part
    status: int
    summary: str
    seconds: float


# The tests that a commit's run repeats on PostgreSQL.
IN_A_COMMIT = "not long and not pages and not sqlite_first and not sqlite_only"
QUICK = Part("quick", "SQLite", "not servers and not long and not pages")
# Both lanes take about as long.
LANES = (
    (
        QUICK,
        Part("postgresql", "PostgreSQL", f"not servers and {IN_A_COMMIT}"),
        Part("servers-postgresql", "PostgreSQL", f"servers and {IN_A_COMMIT}", BY_FILE),
    ),
    (
        Part("servers", "SQLite", "servers and not long", BY_FILE),
        Part("pages", "SQLite", "pages and not servers and not long"),
    ),
)
LONG = (
    Part("fuzzed", "SQLite", "fuzzed and not servers", examples=20),
    Part("long", "SQLite", "long", BY_FILE),
    Part("long-postgresql", "PostgreSQL", "(long or pages or sqlite_first) and not sqlite_only", BY_FILE),
)


def command(part: Part, arguments: Sequence[str], seed: int) -> list[str]:
    """Return the command line of *part*; pytest's *arguments* select further."""
    marks, rest = _without_marks(arguments)
    run = [*PYTEST, f"--dist={part.spread}", f"--randomly-seed={seed}"]
    run += ["-m", _joined(part.marks, marks)]
    if part.database == "PostgreSQL":
        run = [sys.executable, "-m", "rig.on_postgresql", *run]
    return [*run, *rest]


def _without_marks(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split off the expressions given by -m, of which pytest takes only the last."""
    parser = argparse.ArgumentParser(prog="script/test", add_help=False, allow_abbrev=False)
    parser.add_argument("-m", action="append", default=[])
    separate: list[str] = []
    for argument in arguments:
        flags = FLAGS_AND_MARKS.match(argument)
        separate += [flags[1], argument.replace(flags[1], "-", 1)] if flags else [argument]
    found, rest = parser.parse_known_args(separate)
    return found.m, rest


def _joined(marks: str, others: Sequence[str]) -> str:
    return " and ".join([marks, *(f"({other})" for other in others)])


class Lanes:
    """Runs parts and prints their output, each line under the name of its part."""

    def __init__(self, arguments: Sequence[str], seed: int) -> None:
        self._arguments = arguments
        self._seed = seed
        self._printing = threading.Lock()
        self._stopped = False
        self._processes: set[subprocess.Popen[str]] = set()
        self.runs: list[Run] = []
        self.not_run: dict[str, None] = {}  # Tests whose peers are missing, with the reason.

    def run(self, lanes: Sequence[Sequence[Part]]) -> None:
        """Run the lanes side by side, the parts of each one after another."""
        threads = [threading.Thread(target=self._run_lane, args=(lane,)) for lane in lanes]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException:
            self._stop()
            raise

    def _stop(self) -> None:
        """Interrupt the parts that run, so that they stop their servers, and start no other."""
        self._stopped = True
        running = list(self._processes)
        for process in running:
            _signal(process, signal.SIGINT)
        for process in running:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                _signal(process, signal.SIGKILL)

    def _run_lane(self, parts: Sequence[Part]) -> None:
        for part in parts:
            if not self._stopped:
                self.runs.append(self._run_part(part))

    def _run_part(self, part: Part) -> Run:
        began = time.monotonic()
        environment = {key: value for key, value in os.environ.items() if key not in UNSET}
        environment["EXAMPLES_FACTOR"] = str(part.examples)
        line = ""
        with subprocess.Popen(
            command(part, self._arguments, self._seed),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            assert process.stdout is not None
            self._processes.add(process)
            if self._stopped:  # It started while the others were interrupted.
                _signal(process, signal.SIGINT)
            try:
                for line in process.stdout:
                    with self._printing:
                        print(f"{part.name}: {line}", end="", flush=True)  # noqa: T201
                    if line.startswith(NOT_RUN):
                        self.not_run[line.strip()] = None
            finally:
                self._processes.remove(process)
        return Run(part, process.returncode, line.strip(), time.monotonic() - began)


def _signal(process: subprocess.Popen[str], number: int) -> None:
    with suppress(ProcessLookupError):  # It has ended.
        os.killpg(process.pid, number)


def report(runs: Sequence[Run], seconds: float) -> str:
    """Return a table of the parts with their times, and of the whole."""
    rows = [(run.part.name, run.part.database, f"{run.seconds:.0f} s", run.summary) for run in runs]
    rows.append(("whole", "", f"{seconds:.0f} s", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = []
    for name, database, took, summary in rows:
        lines.append(f"{name:<{widths[0]}}  {database:<{widths[1]}}  {took:>{widths[2]}}  {summary}".rstrip())
    return "\n".join(lines)


def main(given: Sequence[str] | None = None) -> int:
    """Run the suite, `--quick` or `--long`; return 1 if a part failed or did not run, or no test ran at all."""
    parser = argparse.ArgumentParser(prog="script/test", add_help=False, allow_abbrev=False)
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--quick", action="store_true")
    chosen.add_argument("--long", action="store_true")
    parser.add_argument("--no-postgresql", action="store_true")
    options, arguments = parser.parse_known_args(given)
    lanes: tuple[tuple[Part, ...], ...] = ((QUICK,),) if options.quick else (LONG,) if options.long else LANES
    if options.no_postgresql:
        lanes = tuple(tuple(part for part in lane if part.database != "PostgreSQL") for lane in lanes)
    seed = random.randrange(2**32)
    print(f"script/test: seed {seed}", flush=True)  # noqa: T201
    began = time.monotonic()
    suite = Lanes(arguments, seed)
    try:
        suite.run(lanes)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    print(f"\n{report(suite.runs, time.monotonic() - began)}", flush=True)  # noqa: T201
    for text in suite.not_run:
        print(f"script/test: {text}")  # noqa: T201
    ran = [run for run in suite.runs if run.status != NO_TESTS]
    if any(run.status == WRONG_ARGUMENTS for run in ran):
        print("script/test: pytest does not accept these arguments; the lines above name the wrong one")  # noqa: T201
    elif suite.runs and not ran:
        print("script/test: no test matches these arguments")  # noqa: T201
    if len(suite.runs) < sum(map(len, lanes)):
        return 1  # A lane broke off: its thread printed the error.
    if not ran or (len(ran) < len(suite.runs) and not arguments):
        return 1
    return int(any(run.status for run in ran))


def program() -> NoReturn:
    """Run main() as a program that SIGTERM and the end of the terminal (SIGHUP) end in order."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP.
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # A shell starts programs in the background so. The parts would inherit it, and could not be interrupted.
        signal.signal(signal.SIGINT, lambda *_: None)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            errors="backslashreplace"
        )  # The encoding of the terminal may lack a character.
    sys.exit(main())


if __name__ == "__main__":
    program()
