"""What serves: gunicorn's worker, and the limits of a request on the whole site."""

from typing import Any


def __getattr__(name: str) -> Any:
    """Return `Worker`, the class that gunicorn is given; it is imported where gunicorn asks for it, and only there."""
    if name == "Worker":
        from authsvc.serving.worker import Worker

        return Worker
    raise AttributeError(name)
