"""The page docs/figures.md: `script/bench NAME --figures FILE` writes its own section and keeps the rest as it is.

A section stands between two comments, which name it. Text outside of the sections is written by hand.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.terminal import format_value
from rig.serving import ROOT

PAGE = "docs/figures.md"
UNKNOWN = "unknown"


class CannotWrite(Exception):
    """The file has no place for a section."""


def check(file: Path, name: str) -> None:
    """Raise CannotWrite unless *file*, or a new file of that name, has a place for section *name*."""
    if not file.parent.is_dir():
        raise CannotWrite(f"{file.parent} is not a folder: name a file in an existing one (--figures)")
    if "--" in name or not name.isprintable():
        raise CannotWrite(
            f"{name!r} cannot stand in a comment: name the section without -- and control characters"
        )
    if file.exists() and not file.is_file():
        raise CannotWrite(f"{file} is not a file (--figures)")
    if not os.access(file.resolve().parent, os.W_OK):
        raise CannotWrite(f"{file} cannot be written: its folder is read-only for this user")
    try:
        _split(file, name)
    except OSError as error:
        raise CannotWrite(f"{file} cannot be read: {error.strerror}") from None


def write(file: Path, name: str, text: str) -> None:
    """Replace section *name* of *file* by *text*, or append it. Keep every other byte. Raise CannotWrite.

    A full disk or a kill leaves the old page, and two benches at once both write their sections.
    """
    place = file.resolve()  # A symbolic link stays one.
    try:
        with _locked(place.parent):
            before, after = _split(place, name)
            _replace(place, before + f"{_begin(name)}\n{text}\n{_end(name)}\n".encode() + after)
    except OSError as error:
        raise CannotWrite(f"{file} cannot be written: {error.strerror}") from None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Run the block while no other process holds this lock of *folder*."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(place: Path, page: bytes) -> None:
    """Write *page* beside the file *place*, then rename it, so that the file is never half written."""
    new = place.with_name(f".{place.name}.new")
    try:
        with new.open("wb") as file:
            file.write(page)
            file.flush()
            os.fsync(file.fileno())
        if place.exists():
            shutil.copymode(place, new)
        new.replace(place)
    finally:
        new.unlink(missing_ok=True)


def _split(file: Path, name: str) -> tuple[bytes, bytes]:
    """Return the bytes of *file* before section *name* and after it."""
    page = file.read_bytes() if file.exists() else b""
    begin, end = _begin(name).encode(), _end(name).encode()
    if begin not in page and end not in page:
        gap = b"" if not page else b"\n" if page.endswith(b"\n") else b"\n\n"
        return page + gap, b""
    before, _, rest = page.partition(begin)
    if page.count(begin) != 1 or page.count(end) != 1 or end not in rest:
        raise CannotWrite(f"{file} must hold {begin.decode()!r} once, and {end.decode()!r} once after it")
    return before, rest.partition(end)[2].removeprefix(b"\n")


def _begin(name: str) -> str:
    return f"<!-- {name}: written by script/bench -->"


def _end(name: str) -> str:
    return f"<!-- end of {name} -->"


def section(title: str, command: str, report: Mapping[str, Any], body: Sequence[str]) -> str:
    """Return a section: heading, command line and machine of the run, the blocks of *body*, and the targets."""
    software = [report[name] for name in ("server", "client") if name in report]
    run = f"{datetime.now(UTC):%Y-%m-%d}, commit {commit()}: `{command}`"
    head = f"{run}\\\n{'; '.join([report['machine'], *report['databases'], *software])}."
    return "\n\n".join([f"## {title}", head, *body, targets(report["targets"])])


def command_line(given: Iterable[str]) -> str:
    """Return the command line with the arguments *given*, without those that only say where to write."""
    kept: list[str] = []
    remaining = iter(given)
    for argument in remaining:
        if argument in ("--figures", "--section"):
            next(remaining, None)
        elif argument != "--json" and not argument.startswith(("--figures=", "--section=")):
            kept.append(argument)
    return shlex.join(["script/bench", *kept])


def machine() -> str:
    """Return number and model of the cores, the load of the last minute, kernel and version of Python."""
    cores = f"{os.cpu_count()} cores ({_model()})"
    load = f"load {os.getloadavg()[0]:.1f} at the start"
    return f"{cores}, {load}; {platform.system()} {platform.release()}; Python {platform.python_version()}"


def _model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine() or UNKNOWN)


def commit(root: Path = ROOT) -> str:
    """Return the short id of the commit of *root*, marked where other files than the page differ from it."""
    found = _git(root, "rev-parse", "--short", "HEAD")
    if found is None:
        return UNKNOWN
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", f":!{PAGE}")
    return f"{found} with uncommitted changes" if changed else found


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def table(columns: Mapping[str, str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return *rows* as a Markdown table; *columns* are the headings by the keys of a row."""
    lines = [columns.values(), ["---"] * len(columns)]
    lines += [[format_value(row.get(key)) for key in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def targets(reached: Iterable[Mapping[str, Any]]) -> str:
    """Return a Markdown table of the targets with their worst figures; a missed one is in bold."""
    columns = {"target": "target", "worst": "worst figure", "result": "result"}
    return table(
        columns, ({**target, "result": "met" if target["met"] else "**missed**"} for target in reached)
    )
