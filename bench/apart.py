"""A coroutine in a process of its own, so that it shares no loop and no lock with who measures.

What it is called with goes to its standard input as JSON, and what it returns comes back the same way.
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
    """What the coroutine of *module* returns. Raises CannotMeasure, which begins with *failed*."""
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
    """The other side: run what was wanted. 1, and why on standard error, when it failed or took *patience* seconds."""
    try:
        report = uvloop.run(run(**json.load(sys.stdin)))
    except (OSError, TimeoutError) as error:
        print(str(error) or f"nothing for {patience} s", file=sys.stderr)
        return 1
    json.dump(report, sys.stdout)
    return 0
