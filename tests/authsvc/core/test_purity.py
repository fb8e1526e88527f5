"""`core`, `dialects` and the codecs of LwM2M import without Django."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.sqlite_only  # Needs no database.


ROOT = Path(__file__).resolve().parents[3]


IMPORT_ALL = """
import importlib, pkgutil, sys
for hidden in ("django", "asgiref", "psycopg", "paho", "structlog"):
    sys.modules[hidden] = None
import authsvc.core, authsvc.dialects, devicehub.messages.lwm2m
for package in (authsvc.core, authsvc.dialects, devicehub.messages.lwm2m):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
        print(module.name)
"""


@pytest.mark.servers
def test_the_pure_packages_import_without_django():
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL],
        cwd=ROOT,
        env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert done.returncode == 0, done.stderr
    imported = done.stdout.split()
    assert {"authsvc.core.authority", "authsvc.core.memory", "authsvc.dialects.go_auth"} <= set(imported)
    assert "devicehub.messages.lwm2m.formats" in imported
