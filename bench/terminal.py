"""What a bench shows while it works, on standard error and only where somebody looks."""

from __future__ import annotations

from rich.console import Console
from rich.progress import Progress


def progress() -> Progress:
    """Bars that are gone when the work is done; enter it as a context."""
    console = Console(stderr=True)
    return Progress(console=console, disable=not console.is_terminal, transient=True)
