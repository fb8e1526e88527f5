"""The settings of the project at its next release, for a migration while workers of this release run."""

from config.settings import *  # noqa: F403

MIGRATION_MODULES = {"fleet": "rig.nuisance.next"}
