"""Where a bench shows what it does, on standard error and only where somebody looks, and what it found."""

from __future__ import annotations

from rich.console import Console
from rich.progress import Progress


def progress() -> Progress:
    """Bars that are gone when the work is done; enter it as a context."""
    console = Console(stderr=True)
    return Progress(console=console, disable=not console.is_terminal, transient=True)


def screen() -> Console:
    """Standard output; wide enough for every table where that is no terminal, but a file or a pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=120)
