"""Mutation testing of the authorization half: do its tests notice small changes of its code?

The mutants come from bench/mutation.py, bench/judging.py lets the tests judge them. A mutant that no test noticed is a
missing test, or it stands in bench/judged_mutants.toml with the reason why it may survive.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from argparse import ArgumentParser, ArgumentTypeError
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.figures import table
from bench.judging import KILLED, SURVIVED, TIMED_OUT, Plan
from bench.mutation import Mutant, mutant_key, mutants
from bench.terminal import progress, screen, show_targets
from rig.serving import CannotMeasure

ROOT = Path(__file__).resolve().parent.parent
PATHS = ("authsvc/core", "authsvc/dialects")
JUDGED = Path(__file__).with_name("judged_mutants.toml")
ACCEPTED, OVER = "accepted", "not reached"
COLUMNS = {"module": "module", **{name: name for name in (KILLED, TIMED_OUT, SURVIVED, ACCEPTED, OVER)}}
TITLE = "Mutants of the authorization half"


@dataclass(frozen=True)
class Suite:
    """The tests that judge, in *stages*: each judges the mutants that survived those before it.

    Paths are relative to the folder of the tests, those of *doctests*, which are in the first stage, to the root.
    """

    stages: Sequence[Sequence[str]] = (
        # These need no database.
        (
            "tests/authsvc/core",
            "tests/authsvc/dialects/test_words.py",
            "tests/authsvc/dialects/test_requests.py",
        ),
        ("tests/authsvc/dialects",),
        ("tests/authsvc",),
    )
    doctests: Sequence[str] = PATHS
    # These measure time, or ask servers in processes of their own, which have no mutant.
    without: Sequence[str] = ("tests/authsvc/test_timing.py", "tests/authsvc/serving/test_serving.py")
    options: Sequence[str] = ("-q", "-p", "no:randomly", "-p", "no:cacheprovider", "-p", "no:xdist")

    def plan(
        self, root: Path, folder: Path, modules: dict[str, str], seconds: float, chosen: list[Mutant]
    ) -> Plan:
        """Return the plan of a run with the tests in *folder*."""
        configuration = folder / "pyproject.toml"
        stages: list[list[str]] = []
        done: list[str] = []
        for paths in self.stages:
            places = [str(folder / path) for path in paths if (folder / path).exists()]
            stages.append([*places, *(f"--ignore={place}" for place in done)])
            done += places
        stages[0] += [str(root / path) for path in self.doctests]
        return Plan(
            root=str(root),
            folder=str(folder),
            modules=modules,
            stages=stages,
            options=[
                *self.options,
                *(["-c", str(configuration)] if configuration.exists() else []),
                *(f"--ignore={folder / path}" for path in self.without),
            ],
            seconds=seconds,
            mutants=[asdict(mutant) for mutant in chosen],
        )


@dataclass(frozen=True)
class Judgement:
    """An entry of the file of judged mutants."""

    module: str
    function: str
    before: str
    after: str
    reason: str
    nth: int = 1

    @property
    def key(self) -> tuple[str, ...]:
        """The mutant, as Mutant.key names it."""
        return mutant_key(self.module, self.function, self.before, self.after, self.nth)


@dataclass
class Report:
    """The results of the sample."""

    seed: int
    total: int
    outcomes: list[dict[str, Any]] = field(default_factory=list)
    obsolete: list[dict[str, str]] = field(default_factory=list)
    failing: list[str] = field(default_factory=list)
    tests: int = 0


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of this bench to *parser*."""
    parser.add_argument("--seed", type=int, default=1, help="order in which mutants are drawn (default: 1)")
    parser.add_argument("--minutes", type=_minutes, default=30, help="stop after this time (default: 30)")
    parser.add_argument("--sample", type=_count, help="judge at most this many mutants (default: all)")
    parser.add_argument(
        "--paths", type=_parts, default=list(PATHS), help="files and folders to mutate, with commas between"
    )
    parser.add_argument("--only", type=_parts, help="names of mutants, with commas between")
    parser.add_argument(
        "--root", type=_folder, default=ROOT, help="checkout whose code is mutated (default: this one)"
    )
    parser.add_argument("--tests", type=_folder, help="checkout whose tests judge (default: that of --root)")
    parser.add_argument("--list", dest="as_list", action="store_true", help="print the sample, judge nothing")


def run(
    *,
    seed: int,
    minutes: float,
    sample: int | None,
    paths: Sequence[str],
    only: Sequence[str] | None,
    root: Path,
    tests: Path | None,
    as_list: bool,
) -> dict[str, Any]:
    """Return the report on mutants of the checkout *root*. Raise CannotMeasure if the tests cannot be run."""
    for path in paths:
        if not (root / path).exists():
            raise CannotMeasure(f"{path} does not exist: name files and folders with --paths")
    everything = found(root, paths)
    if missing := sorted(set(only or ()) - {mutant.name for mutant in everything}):
        raise CannotMeasure(f"no mutant is named {', '.join(missing)}: --list prints the names")
    chosen = draw(everything, seed, size=sample, only=only)
    return measure(
        root, paths=paths, seed=seed, minutes=0 if as_list else minutes, chosen=chosen, folder=tests
    )


def found(root: Path, paths: Sequence[str]) -> list[Mutant]:
    """Return all mutants of the Python files in *paths*, which are relative to *root*."""
    return [
        mutant for file in _files(root, paths) for mutant in mutants(file, (root / file).read_text("utf-8"))
    ]


def draw(
    everything: Sequence[Mutant], seed: int, *, size: int | None = None, only: Sequence[str] | None = None
) -> list[Mutant]:
    """Return mutants in the order of *seed*: the first *size* of them, or those whose names are in *only*."""
    drawn = sorted(everything, key=lambda mutant: (mutant.rank(seed), mutant.start))
    return [mutant for mutant in drawn if only is None or mutant.name in only][:size]


def judgements(file: Path = JUDGED) -> list[Judgement]:
    """Return the entries of the file of judged mutants."""
    return [Judgement(**entry) for entry in tomllib.loads(file.read_text("utf-8")).get("mutant", [])]


def measure(
    root: Path,
    *,
    paths: Sequence[str],
    seed: int,
    minutes: float,
    chosen: Sequence[Mutant],
    folder: Path | None = None,
    suite: Suite | None = None,
    accepted: Sequence[Judgement] | None = None,
) -> dict[str, Any]:
    """Let the tests judge *chosen* for some *minutes*; return the report. Raise CannotMeasure if they do not run."""
    everything = found(root, paths)
    accepted = judgements() if accepted is None else accepted
    reasons = {entry.key: entry.reason for entry in accepted}
    report = Report(seed, len(everything))
    keys = {mutant.key for mutant in everything}
    files = _files(root, paths)
    report.obsolete = [asdict(e) for e in accepted if e.module in files and e.key not in keys]
    to_judge = [mutant for mutant in chosen if mutant.key not in reasons]
    modules = {_module(file): file for file in files}
    plan = (suite or Suite()).plan(root, folder or root, modules, minutes * 60, to_judge)
    verdicts = _verdicts(plan, report) if minutes and to_judge else {}
    for mutant in chosen:
        if mutant.key in reasons:
            result: dict[str, Any] = {"verdict": ACCEPTED, "reason": reasons[mutant.key]}
        else:
            result = verdicts.get(mutant, {"verdict": OVER})
        shown = {"name": mutant.name, "module": mutant.module, "line": mutant.line}
        report.outcomes.append({**shown, "function": mutant.function, "diff": mutant.diff(), **result})
    return _summary(report)


def _verdicts(plan: Plan, report: Report) -> dict[Mutant, dict[str, Any]]:
    """Return the verdicts of bench.judging on the mutants of *plan* that it reached."""
    verdicts: dict[Mutant, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="devicehub-mutants-") as scratch, progress() as bars:
        file = Path(scratch, "plan.json")
        file.write_text(json.dumps(asdict(plan)))
        errors = Path(scratch, "errors")
        task = bars.add_task("running all tests once", total=len(plan.mutants))
        command = [sys.executable, "-m", "bench.judging", str(file)]
        environment = {**os.environ, "TMPDIR": scratch, "PYTHONHASHSEED": "0"}
        with (
            errors.open("wb") as out,
            subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=out, text=True
            ) as process,
        ):
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    result = json.loads(line)
                    if "measured" in result:
                        report.tests += result["measured"]
                        report.failing += result["failing"]
                        bars.reset(task)
                        continue
                    verdicts[Mutant(**plan.mutants[result.pop("number")])] = result
                    counts = Counter(verdict["verdict"] for verdict in verdicts.values())
                    about = ", ".join(f"{counts[verdict]} {verdict}" for verdict in (KILLED, SURVIVED))
                    bars.update(task, advance=1, description=about)
                process.wait()
            finally:
                process.terminate()
        if process.returncode or not report.tests:
            raise CannotMeasure(errors.read_text(errors="replace").strip()[-2000:] or "the tests did not run")
    return verdicts


def _summary(report: Report) -> dict[str, Any]:
    """Return *report* with its figures."""
    counts = dict.fromkeys((KILLED, TIMED_OUT, SURVIVED, ACCEPTED, OVER), 0)
    rows: dict[str, dict[str, int]] = {}
    for outcome in report.outcomes:
        rows.setdefault(outcome["module"], dict(counts))[outcome["verdict"]] += 1
    total = {verdict: sum(row[verdict] for row in rows.values()) for verdict in counts}
    tried = sum(total.values()) - total[OVER]
    percent = round(100 * (total[KILLED] + total[TIMED_OUT]) / tried, 1) if tried else 0.0
    survivors = [outcome for outcome in report.outcomes if outcome["verdict"] == SURVIVED]
    met = not survivors and (tried > 0 or not report.tests)  # A run that tried no mutant shows nothing.
    return {
        "seed": report.seed,
        "mutants": report.total,
        "tests": report.tests,
        "failing": report.failing,
        "rows": [{"module": name, **row} for name, row in (*sorted(rows.items()), ("all", total))],
        "tried": tried,
        "killed_percent": percent,
        "survivors": sorted(survivors, key=lambda outcome: (outcome["module"], outcome["line"])),
        "obsolete": report.obsolete,
        "outcomes": report.outcomes,
        "databases": [],
        "targets": [{"target": "no mutant survived without a reason", "worst": len(survivors), "met": met}],
        "met": met,
    }


def _about(report: dict[str, Any]) -> str:
    return (
        f"{report['mutants']:,} mutants exist; seed {report['seed']} drew {len(report['outcomes']):,}, of which "
        f"{report['tried']:,} were tried, and {report['killed_percent']} % of those killed."
    )


def show(report: dict[str, Any]) -> None:
    """Print the figures of each module, and each survivor with its place and its change."""
    console = screen()
    if not report["tried"]:
        for outcome in report["outcomes"]:
            _show_mutant(console, outcome)
        return
    shown = Table(title="Mutants")
    for name, heading in COLUMNS.items():
        shown.add_column(heading, justify="left" if name == "module" else "right")
    for row in report["rows"]:
        shown.add_row(*(str(row[name]) for name in COLUMNS))
    console.print(shown)
    console.print(_about(report), highlight=False)
    for outcome in report["survivors"]:
        _show_mutant(console, outcome)
    for entry in report["obsolete"]:
        about = f"{entry['module']}, {entry['function']}: {entry['before']!r} -> {entry['after']!r}"
        console.print(f"Remove from {JUDGED.name}, there is no such mutant: {about}", markup=False)
    for test in report["failing"]:
        console.print(f"Not used, because it fails without a mutant: {test}", markup=False)
    show_targets(console, report)


def _show_mutant(console: Console, outcome: dict[str, Any]) -> None:
    place = f"{outcome['module']}:{outcome['line']}"
    console.print(f"{outcome['name']} {place} {outcome['function']}", markup=False, highlight=False)
    console.print(outcome["diff"], markup=False, highlight=False)


def markdown(report: dict[str, Any]) -> list[str]:
    """Return the blocks of this bench's section of the figures."""
    return [_about(report), table(COLUMNS, report["rows"])]


def _files(root: Path, paths: Sequence[str]) -> list[str]:
    """Return the Python files in *paths*, relative to *root*."""
    files = [
        file
        for path in paths
        for file in ([root / path] if path.endswith(".py") else sorted((root / path).rglob("*.py")))
    ]
    return [file.relative_to(root).as_posix() for file in files]


def _module(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _minutes(text: str) -> float:
    """Return *text* as a time above zero."""
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0
    if not minutes > 0:
        raise ArgumentTypeError(f"{text!r} is not a number of minutes above 0")
    return minutes


def _count(text: str) -> int:
    """Return *text* as a whole number above zero."""
    if not text.isdecimal() or int(text) == 0:
        raise ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _parts(text: str) -> list[str]:
    return text.split(",")


def _folder(text: str) -> Path:
    """Return *text* as a folder that holds tests."""
    folder = Path(text).resolve()
    if not (folder / "tests").is_dir():
        raise ArgumentTypeError(f"{text!r} has no folder tests")
    return folder
