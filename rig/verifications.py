"""A count of the password hashes that are verified."""

from __future__ import annotations

from passlib.context import CryptContext


def count_verifications(monkeypatch):
    """Return a list to which each stored hash is added that passlib verifies from now on."""
    seen = []
    verify = CryptContext.verify

    def counted(self, secret, stored, *arguments, **options):
        seen.append(stored)
        return verify(self, secret, stored, *arguments, **options)

    monkeypatch.setattr(CryptContext, "verify", counted)
    return seen
