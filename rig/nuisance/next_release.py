"""The project's settings at its next release; for the one who migrates, while workers of this one go on."""

from config.settings import *  # noqa: F403

MIGRATION_MODULES = {"fleet": "rig.nuisance.next"}
