"""A project with migrations of an earlier release, which name models by former paths."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from rig import hub
from rig.hub import ROOT

pytestmark = [pytest.mark.sqlite_only, pytest.mark.servers]
EARLIER = Path(__file__).parent / "earlier_project"
SETTINGS = """
from rig.settings import *
from rig.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "greenhouses"]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return the folder of the project."""
    app = tmp_path / "greenhouses"
    (app / "migrations").mkdir(parents=True)
    (app / "__init__.py").touch()
    (app / "migrations" / "__init__.py").touch()
    shutil.copy(EARLIER / "models.txt", app / "models.py")
    shutil.copy(EARLIER / "0001_initial.txt", app / "migrations" / "0001_initial.py")
    (tmp_path / "plant_settings.py").write_text(SETTINGS)
    return tmp_path


def manage(project: Path, *commands: list[str]) -> list[str]:
    """Run management commands of *project* in one process, and return their output."""
    return hub.run_commands(
        f"sqlite:///{project}/plant.sqlite3",
        *commands,
        DJANGO_SETTINGS_MODULE="plant_settings",
        PYTHONPATH=os.pathsep.join([str(ROOT), str(project)]),
    )


def test_an_earlier_project_migrates_without_a_new_migration_and_provisions(project):
    changes, *_, findings, devices = manage(
        project,
        ["makemigrations", "--check", "--dry-run"],
        ["migrate", "--verbosity", "0"],
        ["migrate", "--check", "--verbosity", "0"],
        ["check", "--database", "default"],
        ["provision_devices", "greenhouse", "--count=1", "--prefix=G", "--output=-"],
    )

    assert changes == "No changes detected\n"
    assert findings == "System check identified no issues (0 silenced).\n"
    assert "greenhouses-greenhousedevice-G001" in devices


def test_a_new_migration_names_documented_paths(project):
    """A project freezes these paths, so that later moves of a field or a default would have to keep others."""
    (project / "greenhouses" / "migrations" / "0001_initial.py").unlink()

    manage(project, ["makemigrations", "greenhouses"])

    written = (project / "greenhouses" / "migrations" / "0001_initial.py").read_text()
    imports = {
        line for line in written.splitlines() if line.startswith(("import authsvc", "import devicehub"))
    }
    assert imports == {"import authsvc.models", "import devicehub.models"}
