"""The AppConfig examples of the pages: Django imports their module before any model exists."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from rig.hub import ROOT

pytestmark = pytest.mark.sqlite_only

APPS = [
    block
    for page in sorted((ROOT / "docs").rglob("*.md"))
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    if "(AppConfig)" in block
]


def test_pages_show_apps():
    assert len(APPS) > 2


# Each in a namespace of its own: a page must show all the imports of its example.
RUN = """
import json, sys

for block in json.loads(sys.argv[1]):
    exec(compile(block, block, "exec"), {"__name__": "apps"})
"""


@pytest.mark.servers
def test_their_modules_can_be_imported_before_there_are_models():
    """One process runs all of them: a module that loads a model fails whichever others ran before it."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(APPS)],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "rig.settings"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
