"""The AppConfig examples of the pages: Django imports their module before any model exists."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from rig.hub import ROOT

pytestmark = pytest.mark.sqlite_only

APPS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in sorted((ROOT / "docs").rglob("*.md"))
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
    if "(AppConfig)" in block
]


def test_pages_show_apps():
    assert len(APPS) > 2


@pytest.mark.parametrize("block", APPS)
def test_its_module_can_be_imported_before_there_are_models(block):
    done = subprocess.run(
        [sys.executable, "-c", block],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "rig.settings"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
