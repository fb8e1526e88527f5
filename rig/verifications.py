"""A count of the password hashes that are verified."""

from __future__ import annotations

from passlib.context import CryptContext


def count_verifications(monkeypatch):
    """The stored hashes that passlib is asked to verify from now on, in a list."""
    seen = []
    verify = CryptContext.verify

    def counted(self, secret, stored, *arguments, **options):
        seen.append(stored)
        return verify(self, secret, stored, *arguments, **options)

    monkeypatch.setattr(CryptContext, "verify", counted)
    return seen
