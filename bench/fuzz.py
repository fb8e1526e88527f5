"""`script/bench fuzz`: coverage-guided fuzzing of the parsers of the authorization half: topic, body, hash.

The promises are in rig/oracles.py, which the property tests use too. Each target runs in a process of its own,
because libFuzzer ends the process in which it runs; `python -m bench.fuzz TARGET ...` is that process.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from argparse import ArgumentParser, Namespace
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
TARGETS = ("topic", "body", "hash")
INSTRUMENTED = ["authsvc", "jwt", "passlib"]  # their branches guide the search
LIMITS = ["-timeout=10", "-rss_limit_mb=2048", "-max_len=4096"]
WORDS = {  # words that random bytes rarely form
    "topic": [
        "$share/",
        "$SYS",
        "$CONTROL",
        "/+/",
        "/#",
        "{username}",
        "{client_id}",
        "{device_id}",
        "\u202e",
    ],
    "body": [
        *(
            "username",
            "password",
            "clientid",
            "client_id",
            "acc",
            "access",
            "action",
            "topic",
            "topics",
            "qos",
        ),
        *("vhost", "resource", "name", "permission", "routing_key", "variable_map.username", "format=text"),
        *(
            "STATION-001",
            "STATION-002",
            "ingest",
            "s3cretOne",
            "publish",
            "subscribe",
            "amq.topic",
            "Bearer ",
        ),
        *("things/weatherstation/STATION-001/data", "application/json", "application/x-www-form-urlencoded"),
        *("vernemq-hook: auth_on_", "authorization: ", "content-type: ", '\\"', "%2F", "\\u0000", "\ufffd"),
    ],
    "hash": [
        "{SSHA256}",
        "$argon2id$v=19$m=",
        ",t=",
        ",p=",
        "$2b$",
        "$pbkdf2-sha256$",
        "pbkdf2_sha256$",
        "$7$",
        "$6$",
    ],
}


@dataclass
class Outcome:
    """The result of one target. *findings* are files with an input that broke a promise."""

    target: str
    executions: int = 0
    per_second: int = 0
    coverage: int = 0
    findings: list[str] = field(default_factory=list)
    failed: str = ""  # the reason if it did not run


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `script/bench fuzz`."""
    parser.add_argument("target", nargs="?", choices=(*TARGETS, "all"), default="all")
    parser.add_argument("--seconds", type=int, default=60, help="seconds per target (default: 60)")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--replay", metavar="FILE", type=Path, help="check one input again, without atheris")


def main(arguments: Namespace) -> int:
    """Run what *arguments* say. Return 0 if no promise was broken, 1 for a finding, 2 if it cannot run."""
    if arguments.replay is not None:
        if arguments.target == "all":
            print("--replay needs a target: script/bench fuzz topic|body|hash --replay FILE", file=sys.stderr)
            return 2
        return replay(arguments.target, arguments.replay)
    if arguments.seconds < 1:
        print("--seconds must be 1 or more", file=sys.stderr)
        return 2
    targets = list(TARGETS) if arguments.target == "all" else [arguments.target]
    return run(targets=targets, seconds=arguments.seconds, as_json=arguments.json)


def run(*, targets: list[str], seconds: int, as_json: bool) -> int:
    """Fuzz and print the results. Return 0 without findings, 1 for a finding, 2 if it cannot run."""
    if find_spec("atheris") is None:
        print(
            "script/bench fuzz needs atheris: .venv/bin/pip install -r requirements/fuzz.txt",
            file=sys.stderr,
        )
        return 2
    folder = Path(tempfile.mkdtemp(prefix="devicehub-fuzz-"))
    outcomes = [_fuzz(target, seconds, folder) for target in targets]
    found = [outcome for outcome in outcomes if outcome.findings]
    failed = [outcome for outcome in outcomes if outcome.failed]
    if as_json:
        print(json.dumps([asdict(outcome) for outcome in outcomes], indent=2))
    else:
        _show(outcomes)
    for outcome in found:
        for file in outcome.findings:
            print(f"Replay it: script/bench fuzz {outcome.target} --replay {file}", file=sys.stderr)
    for outcome in failed:
        print(f"{outcome.target} did not run: {outcome.failed}", file=sys.stderr)
    if not found and not failed:
        shutil.rmtree(folder)
    return 1 if found else 2 if failed else 0


def replay(target: str, file: Path) -> int:
    """Judge one input again. Return 0 if the promise holds, 1 if not, 2 if the file cannot be read."""
    from rig import oracles

    try:
        data = file.read_bytes()
    except OSError as error:
        print(f"script/bench fuzz cannot read {file}: {error.strerror}", file=sys.stderr)
        return 2
    print(oracles.describe(target, data))
    try:
        oracles.TARGETS[target](data)
    except BaseException:
        traceback.print_exc()
        return 1
    print("The promise holds.")
    return 0


def _fuzz(target: str, seconds: int, folder: Path) -> Outcome:
    """Run *target* in a process of its own, and return the outcome from the log of libFuzzer."""
    corpus, found, log = folder / f"{target}-corpus", folder / f"{target}-found", folder / f"{target}.log"
    for each in (corpus, found):
        each.mkdir()
    words = folder / f"{target}.dict"
    words.write_text("".join(f'"{_quoted(word)}"\n' for word in WORDS[target]))
    command = [sys.executable, "-W", "error", "-m", "bench.fuzz", target, str(corpus), *LIMITS]
    command += [f"-dict={words}", f"-max_total_time={seconds}", f"-artifact_prefix={found}/"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out)
        try:
            _follow(process, target, seconds, log)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(15)
    outcome = _read(target, log.read_text(errors="replace"))
    outcome.findings = sorted(map(str, found.iterdir()))
    if process.returncode and not outcome.findings:
        outcome.failed = f"it ended with {process.returncode}; see {log}"
    return outcome


def _quoted(word: str) -> str:
    """Return *word* as a dictionary of libFuzzer spells it."""
    return "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02X}" for byte in word.encode()
    )


def _follow(process: subprocess.Popen[bytes], target: str, seconds: int, log: Path) -> None:
    """Wait for the end, with a progress bar on a terminal."""
    console = Console(stderr=True)
    began = time.monotonic()
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(target, total=seconds)
        while process.poll() is None:
            time.sleep(0.5)
            state = _read(target, log.read_text(errors="replace"))
            about = f"{target}: {state.executions:,} executions, coverage {state.coverage}"
            progress.update(task, completed=time.monotonic() - began, description=about)


def _read(target: str, log: str) -> Outcome:
    """Return the figures in lines such as `#4096 pulse cov: 812 ft: 2931 corp: 190/23Kb exec/s: 1365`."""
    executions = [int(number) for number in re.findall(r"^#(\d+)\t", log, re.MULTILINE)]
    coverage = re.findall(r"cov: (\d+)", log)
    done = re.search(r"^Done (\d+) runs in (\d+) second", log, re.MULTILINE)
    rate = re.findall(r"exec/s: (\d+)", log)
    outcome = Outcome(target, max(executions, default=0))
    outcome.coverage = int(coverage[-1]) if coverage else 0
    outcome.per_second = int(rate[-1]) if rate else 0
    if done:
        outcome.executions = int(done[1])
        outcome.per_second = outcome.executions // max(1, int(done[2]))
    return outcome


def _show(outcomes: list[Outcome]) -> None:
    table = Table(title="Fuzzing of the authorization half")
    table.add_column("target")
    for heading in ("executions", "per second", "coverage", "findings"):
        table.add_column(heading, justify="right")
    for outcome in outcomes:
        figures = (outcome.executions, outcome.per_second, outcome.coverage, len(outcome.findings))
        table.add_row(outcome.target, *(f"{figure:,}" for figure in figures))
    Console().print(table)


def _target(name: str, corpus: Path, options: list[str]) -> None:
    """Fuzz one target in this process: import with instruments, write the seeds, start libFuzzer."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        from rig import oracles, seeds
    for number, seed in enumerate(seeds.SEEDS[name]()):
        (corpus / f"seed-{number:03d}").write_bytes(seed)
    atheris.Setup([sys.argv[0], *options, str(corpus)], oracles.TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    _target(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
