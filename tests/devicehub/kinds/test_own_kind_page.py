"""The code on the documentation page about own kinds is that of the heat meters, which other tests here run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs/how-to/add-a-kind-of-your-own.md"
APP = ROOT / "tests/devicehub/kinds/heat"


def test_the_code_of_the_page_is_the_code_of_the_app():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    *models, admin = [block.strip() for block in blocks]
    written = (APP / "models.py").read_text().replace("tests.devicehub.kinds.heat", "heat")
    _, code = written.split('"""\n\n', 1)

    assert "\n\n\n".join(models) == code.strip()
    assert admin == (APP / "pages.py").read_text().strip()


@pytest.mark.servers
@pytest.mark.sqlite_only
@pytest.mark.parametrize("apps", ["[heat, *INSTALLED_APPS]", "[*INSTALLED_APPS, heat]"])
def test_its_admin_is_found_wherever_the_app_stands(apps):
    program = f"""
import django
from django.apps import apps
from django.conf import settings
from django.contrib import admin

heat, INSTALLED_APPS = "tests.devicehub.kinds.heat", settings.INSTALLED_APPS
settings.INSTALLED_APPS = {apps}
django.setup()
print(type(admin.site.get_model_admin(apps.get_model("heat.HeatMeter"))).__name__)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "rig.settings"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.stdout == "HeatMeterAdmin\n", done.stderr
