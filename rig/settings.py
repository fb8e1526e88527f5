"""The settings of the project with a random secret, and a database file that raw drivers can read."""

import os
import secrets
import shutil
import tempfile

os.environ.setdefault("SECRET_KEY", secrets.token_urlsafe(50))
# In memory a commit waits for no disk, which takes longer than most tests compute. No test database survives its run.
_memory = "/dev/shm"
_dir = _memory if os.access(_memory, os.W_OK) and shutil.disk_usage(_memory).free > 2**30 else None
_kept = tempfile.TemporaryDirectory(prefix="devicehub-tests-", dir=_dir)  # removed when the process ends
_folder = _kept.name
os.environ.setdefault("DATABASE_URL", f"sqlite:///{_folder}/devicehub.sqlite3")

from config.settings import *  # noqa: E402, F403
from config.settings import DATABASES  # noqa: E402

if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # Only the ORM can read the default of Django for tests, a database in memory.
    DATABASES["default"]["TEST"] = {"NAME": f"{_folder}/test.sqlite3"}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # of admin logins in tests
