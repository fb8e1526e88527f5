"""The import path of the worker class for gunicorn."""

import subprocess
import sys

import pytest

from authsvc import serving
from authsvc.serving import worker
from rig.hub import ROOT


def test_the_worker_has_its_documented_path():
    assert serving.Worker is worker.Worker


def test_nothing_else_is_found_there():
    with pytest.raises(AttributeError, match="has no attribute 'Boss'"):
        _ = serving.Boss


@pytest.mark.servers
@pytest.mark.sqlite_only
def test_gunicorn_is_imported_only_for_the_worker():
    """A command or an ASGI application on another server does not need gunicorn."""
    script = "import sys, authsvc.serving.addresses; sys.exit('gunicorn' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0
