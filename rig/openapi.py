"""`python -m rig.openapi` writes docs/reference/openapi.yaml from the routes and the declared types."""

from __future__ import annotations

import os
from pathlib import Path

import django
import yaml
from django.apps import apps

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "rig.settings")
if not apps.ready:
    django.setup()

from devicehub.api.documentation import document

PAGE = Path(__file__).resolve().parent.parent / "docs/reference/openapi.yaml"
COMMAND = "python -m rig.openapi"


def described() -> str:
    """Return the description of the API as YAML."""
    text: str = yaml.safe_dump(document(), sort_keys=False, allow_unicode=True, width=110)
    return f"# Written by {COMMAND}; served at /api/schema/.\n{text}"


if __name__ == "__main__":
    PAGE.write_text(described())
