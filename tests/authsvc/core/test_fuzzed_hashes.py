"""Fuzzed stored hashes: no wrong password matches, and no huge cost is computed."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authsvc.core import passwords
from rig import oracles
from rig.examples import examples
from rig.fuzzed import hostile, quick
from rig.oracles import judge_hash
from rig.seeds import HASHES, PASSWORD

pytestmark = pytest.mark.sqlite_only  # The parsers need no database, and the entrance reads one row of it.


# Hashes.

secrets = st.one_of(
    st.just(PASSWORD),
    st.sampled_from(
        ["", "\x00", PASSWORD + "\x00", "x" * 4_096, "x" * 4_097, "é" * 2_049, "\ud800", "p" * 73]
    ),
    hostile,
)
NUMBERS = [
    "0",
    "1",
    "00001",
    "-1",
    "2000001",
    "999999999",
    "9" * 12,
    "\u0661",
    "\u0661\u0660",
    "1e9",
    "0x10",
    "",
]
hash_scraps = st.one_of(
    st.sampled_from(
        [*"$=,.+/{}", "$2b$", "$argon2id$", "m=", "t=", "p=", "{SSHA256}", "PBKDF2", "\n", *NUMBERS]
    ),
    hostile,
)


@settings(quick, max_examples=examples(100))
@given(
    secrets,
    st.one_of(st.sampled_from(sorted(HASHES.values())), st.lists(hash_scraps, max_size=8).map("".join)),
)
def test_any_password_against_any_text(secret, stored):
    judge_hash(secret, stored)


@settings(quick, max_examples=examples(100))
@given(secrets, st.sampled_from(sorted(HASHES)), st.data())
def test_a_hash_with_one_error_accepts_no_password(secret, name, data):
    stored = HASHES[name]
    start = data.draw(st.integers(0, len(stored)))
    end = data.draw(st.integers(start, min(len(stored), start + 4)))

    judge_hash(secret, stored[:start] + data.draw(hash_scraps) + stored[end:])


@pytest.mark.parametrize("name", sorted(HASHES))
def test_a_huge_number_in_a_hash_is_refused(name):
    """Each number in turn. A digit of another script is not a digit of a hash."""
    stored = HASHES[name]
    parts = _numbers(stored)
    for number, (position, part) in itertools.product(NUMBERS, enumerate(parts)):
        if part.isdigit():
            changed = "".join([*parts[:position], number, *parts[position + 1 :]])
            judge_hash(PASSWORD, changed)
            if not number.isascii():
                with pytest.raises(passwords.UnusableHash):
                    passwords.scheme_of(changed)


def _numbers(stored: str) -> list[str]:
    """Return the parts of *stored*, with its costs separated from the rest."""
    return re.split(r"(?<=[$=])(\d+)(?=[,$])", stored)


@pytest.mark.parametrize("name", sorted(HASHES))
def test_the_oracle_knows_each_scheme(name):
    judge_hash(PASSWORD, HASHES[name])

    assert passwords.verify(PASSWORD, HASHES[name])
    assert oracles.made_from(PASSWORD.encode(), HASHES[name])
    assert not oracles.made_from(b"another", HASHES[name])


def test_spare_bits_of_bcrypt_are_zero():
    """passlib would correct them and warn, which is an error if warnings are errors."""
    stored = HASHES["bcrypt"]

    for place in (28, 59):
        for letter in set("./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789") - {
            stored[place]
        }:
            judge_hash(PASSWORD, stored[:place] + letter + stored[place + 1 :])


@pytest.mark.parametrize("name", sorted(HASHES))
def test_a_password_with_nul_appended_is_another_password(name):
    """PBKDF2 pads its key with NUL, so both would have the same hash."""
    for secret in (PASSWORD + "\x00", PASSWORD + "\x00\x00", "\x00"):
        judge_hash(secret, HASHES[name])


def test_the_dummy_hash_can_be_verified_with_every_text():
    """An unknown name costs this verification; a fault in it would show which names exist."""
    for secret in ("", "\x00", "\ud800", "é" * 2_048, "x" * 4_096):
        assert not passwords.verify(secret, passwords.DUMMY_HASH)
