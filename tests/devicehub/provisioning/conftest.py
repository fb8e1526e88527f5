"""Chosen passwords that are hashed with little work."""

from __future__ import annotations

import pytest
from passlib.context import CryptContext

from authsvc.core import passwords


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash chosen passwords in no time. The hash in force is that of tests/authsvc/core/test_limits_of_hashes.py."""
    least = {"argon2__rounds": 1, "argon2__memory_cost": 64, "argon2__parallelism": 1}
    monkeypatch.setattr(passwords, "_CHOSEN", CryptContext(schemes=["argon2"], argon2__type="ID", **least))
