"""Runs a coroutine in a process of its own, so that it shares no loop and no lock with the bench.

Its arguments go to its standard input as JSON, and its result comes back on its standard output.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from rig.serving import ROOT, CannotMeasure


def call(module: str, failed: str, **wanted: Any) -> Any:
    """Return the result of the coroutine of *module*. Raise CannotMeasure with a message that begins with *failed*."""
    done = subprocess.run(
        [sys.executable, "-m", module],
        cwd=ROOT,
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CannotMeasure(f"{failed}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def answer(run: Callable[..., Coroutine[Any, Any, Any]], patience: int) -> int:
    """Run the coroutine in the new process. Print the error and return 1 if it fails or takes *patience* seconds."""
    try:
        report = uvloop.run(run(**json.load(sys.stdin)))
    except (OSError, TimeoutError) as error:
        print(str(error) or f"no result within {patience} s", file=sys.stderr)
        return 1
    json.dump(report, sys.stdout)
    return 0
