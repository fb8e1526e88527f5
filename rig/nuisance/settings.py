"""The settings of the project with the app `rig.nuisance`, for workers of the fault suite."""

import threading
import time
from typing import SupportsIndex

from config.settings import *  # noqa: F403
from config.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "rig.nuisance"]


def _sleep(seconds: float | SupportsIndex) -> None:
    threading.Event().wait(float(seconds))


# Debian's libfaketime 0.9.10 refuses the clock_nanosleep() of Python's own sleep, with EINVAL.
time.sleep = _sleep
