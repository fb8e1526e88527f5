"""Answers to brokers, side by side with a bare application on the same server, loop and parser.

Rounds alternate between the two, so that a busy machine slows both; what counts is the ratio of medians.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
CONNECTIONS = (1, 16)
TARGET_MEDIAN, TARGET_RATE = 1.7, 0.55
SCRIPT = """\
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [[{body}]]
"""


@dataclass
class Subject:
    """Something to ask: its name in the table, and the URL and body of the question."""

    name: str
    url: str
    body: str


@dataclass
class Measured:
    """One round of wrk: the median in microseconds, and answers per second."""

    median: float
    rate: float


def run(*, seconds: float, rounds: int, as_json: bool) -> int:
    """Measure and print; 0 when both targets are met, 1 when not, 2 when it cannot be measured."""
    if shutil.which("wrk") is None:
        print("script/bench auth needs wrk; on Debian: apt-get install wrk", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="devicehub-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        environment = _environment(folder)
        token, login = _prepare(environment)
        bare = stack.enter_context(_served("bench.bare:application", environment, folder))
        ours = stack.enter_context(_served("config.asgi:application", environment, folder))
        subjects = _subjects(bare, ours, token, login)
        results = _measure(subjects, seconds, rounds, folder)
    report = _report(results)
    print(json.dumps(report, indent=2)) if as_json else _show(report)
    return 0 if report["met"] else 1


def _environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "SECRET_KEY": secrets.token_urlsafe(50),
        "DATABASE_URL": f"sqlite:///{folder}/bench.sqlite3",
    }


def _prepare(environment: dict[str, str]) -> tuple[str, dict[str, Any]]:
    def manage(*arguments: str) -> str:
        command = [sys.executable, "manage.py", *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
        ).stdout

    manage("migrate", "--verbosity", "0")
    token = json.loads(manage("create_broker", "bench", "go-auth", "--json"))["token"]
    fleet = ["--count", "1", "--prefix", "STATION-", "--output", "-"]
    devices = json.loads(manage("provision_devices", "weatherstation", *fleet))
    return token, devices[0]


@contextmanager
def _served(application: str, environment: dict[str, str], folder: Path) -> Iterator[str]:
    """*application* on gunicorn with the project's own configuration and one worker, on a free port."""
    log = folder / f"{application.partition(':')[0]}.log"
    command = [sys.executable, "-m", "gunicorn", "-c", "config/gunicorn.conf.py", "--workers", "1"]
    with log.open("wb") as out:
        server = subprocess.Popen(
            [*command, "--bind", "127.0.0.1:0", "--log-level", "info", application],
            cwd=ROOT,
            env=environment,
            stdout=out,
            stderr=out,
        )
    try:
        yield _address(server, log)
    finally:
        server.terminate()
        server.wait(15)


def _address(server: subprocess.Popen[bytes], log: Path) -> str:
    """Where it listens: it chose a free port and says which."""
    end = time.monotonic() + 30
    while time.monotonic() < end and server.poll() is None:
        text = log.read_text()
        found = re.search(r"Listening at: (http://[\d.:]+)", text)
        if found and "ASGI server listening" in text:
            return found[1]
        time.sleep(0.05)
    raise SystemExit(f"The server did not start:\n{log.read_text()}")


def _subjects(bare: str, ours: str, token: str, device: dict[str, Any]) -> list[Subject]:
    who = {"clientid": device["mqtt_username"], "username": device["mqtt_username"]}
    login = json.dumps({**who, "password": device["mqtt_password"]})
    acl = json.dumps({**who, "acc": 2, "topic": device["topics"]["data"]})
    return [
        Subject("bare", f"{bare}/mqtt/go-auth/user?k={token}", login),
        Subject("login", f"{ours}/mqtt/go-auth/user?k={token}", login),
        Subject("acl", f"{ours}/mqtt/go-auth/acl?k={token}", acl),
    ]


def _measure(
    subjects: list[Subject], seconds: float, rounds: int, folder: Path
) -> dict[tuple[str, int], list[Measured]]:
    results: dict[tuple[str, int], list[Measured]] = {}
    for subject in subjects:
        (folder / f"{subject.name}.lua").write_text(SCRIPT.format(body=subject.body))
        for connections in CONNECTIONS:  # warm up: imports, connections, caches
            _wrk(subject, connections, 0.5, folder)
    steps = [(s, c) for _ in range(rounds) for c in CONNECTIONS for s in subjects]
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        for subject, connections in progress.track(steps, description="auth"):
            measured = _wrk(subject, connections, seconds, folder)
            results.setdefault((subject.name, connections), []).append(measured)
    return results


def _wrk(subject: Subject, connections: int, seconds: float, folder: Path) -> Measured:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency"]
    script = str(folder / f"{subject.name}.lua")
    done = subprocess.run(
        [*command, "-s", script, subject.url], check=True, capture_output=True, text=True
    ).stdout
    if "Non-2xx" in done or "Socket errors" in done:
        raise SystemExit(f"{subject.name} was not answered as it should be:\n{done}")
    median = re.search(r"50%\s+([\d.]+)(us|ms|s)", done)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done)
    if median is None or rate is None:
        raise SystemExit(f"wrk printed something else than expected:\n{done}")
    factor = {"us": 1, "ms": 1e3, "s": 1e6}[median[2]]
    return Measured(float(median[1]) * factor, float(rate[1]))


def _report(results: dict[tuple[str, int], list[Measured]]) -> dict[str, Any]:
    medians = {
        key: Measured(
            statistics.median(m.median for m in measured), statistics.median(m.rate for m in measured)
        )
        for key, measured in results.items()
    }
    rows: list[dict[str, Any]] = []
    for (name, connections), measured in medians.items():
        reference = medians["bare", connections]
        rows.append(
            {
                "question": name,
                "connections": connections,
                "median_us": round(measured.median, 1),
                "per_second": round(measured.rate),
                "median_ratio": round(measured.median / reference.median, 2),
                "rate_ratio": round(measured.rate / reference.rate, 2),
            }
        )
    asked = [row for row in rows if row["question"] != "bare"]
    met = all(
        row["median_ratio"] <= TARGET_MEDIAN if row["connections"] == 1 else row["rate_ratio"] >= TARGET_RATE
        for row in asked
    )
    return {"server": _server(), "database": "sqlite", "devices": 1, "rows": rows, "met": met}


def _server() -> str:
    def version(package: str) -> str:
        module = importlib.import_module(package)
        return str(getattr(module, "__version__", "?"))

    parser = "C parser" if importlib.util.find_spec("gunicorn_h1c") else "Python parser"
    python = ".".join(map(str, sys.version_info[:3]))
    return f"Python {python}, gunicorn {version('gunicorn')}, uvloop {version('uvloop')}, {parser}"


def _show(report: dict[str, Any]) -> None:
    table = Table(title=f"Answers to a broker ({report['server']}, {report['database']})")
    for heading in ("question", "connections", "median us", "per second", "median / bare", "rate / bare"):
        table.add_column(heading, justify="left" if heading == "question" else "right")
    for row in report["rows"]:
        table.add_row(*(str(value) for value in row.values()))
    console = Console()
    console.print(table)
    target = (
        f"median at 1 connection at most {TARGET_MEDIAN} times bare, rate at 16 at least {TARGET_RATE:.0%}"
    )
    console.print(f"Target, {target}: {'met' if report['met'] else 'NOT met'}")
