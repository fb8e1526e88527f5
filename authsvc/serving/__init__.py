"""The serving process: gunicorn's worker, and the limits of a request on the whole site."""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    """Return `Worker`, the worker class for gunicorn. Only this lookup imports gunicorn."""
    if name != "Worker":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("authsvc.serving.worker").Worker
