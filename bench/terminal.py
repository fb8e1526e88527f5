"""Output of a bench: progress on standard error, if that is a terminal, and results on standard output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import Progress


def progress() -> Progress:
    """Return progress bars, a context manager that removes them at its end."""
    console = Console(stderr=True)
    return Progress(console=console, disable=not console.is_terminal, transient=True)


def screen() -> Console:
    """Return a console of standard output; a file or a pipe is wide enough for every table."""
    console = Console()
    return console if console.is_terminal else Console(width=120)


def show_targets(console: Console, report: Mapping[str, Any]) -> None:
    """Print each target of *report* with its outcome and its worst figure."""
    for target in report["targets"]:
        outcome = "met" if target["met"] else "NOT met"
        console.print(f"Target, {target['target']}: {outcome} (worst: {target['worst']})", highlight=False)


def format_value(value: object) -> str:
    """Return *value* as a table shows it: None is empty, and a float below 10 has two decimals."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.2f}" if value < 10 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
