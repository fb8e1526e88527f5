"""The settings of tests with Django's own admin: without unfold, and without the pages of `devicehub.urls`."""

from rig.settings import *  # noqa: F403
from rig.settings import INSTALLED_APPS, UNFOLD

INSTALLED_APPS = [app for app in INSTALLED_APPS if app != "unfold"]
ROOT_URLCONF = "rig.stock_admin_urls"
del UNFOLD
