"""Stored hashes fed with anything: no wrong password fits, and no huge cost is paid."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authsvc.core import passwords
from rig import oracles
from rig.fuzzed import hostile, quick
from rig.oracles import judge_hash
from rig.seeds import HASHES, PASSWORD

pytestmark = pytest.mark.sqlite_only  # the parsers need no database, and the entrance reads one row of it


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


@settings(quick, max_examples=300)
@given(
    secrets,
    st.one_of(st.sampled_from(sorted(HASHES.values())), st.lists(hash_scraps, max_size=8).map("".join)),
)
def test_any_password_against_any_text(secret, stored):
    judge_hash(secret, stored)


@settings(quick, max_examples=400)
@given(secrets, st.sampled_from(sorted(HASHES)), st.data())
def test_a_hash_with_one_thing_wrong_is_no_open_door(secret, name, data):
    stored = HASHES[name]
    start = data.draw(st.integers(0, len(stored)))
    end = data.draw(st.integers(start, min(len(stored), start + 4)))

    judge_hash(secret, stored[:start] + data.draw(hash_scraps) + stored[end:])


@pytest.mark.parametrize("name", sorted(HASHES))
@pytest.mark.parametrize("number", NUMBERS)
def test_no_number_of_a_hash_lets_a_huge_cost_through(name, number):
    """Each number in turn; a digit of another script is no digit of a hash."""
    stored = HASHES[name]
    for position, part in enumerate(parts := _numbers(stored)):
        if part.isdigit():
            changed = "".join([*parts[:position], number, *parts[position + 1 :]])
            judge_hash(PASSWORD, changed)
            if not number.isascii():
                with pytest.raises(passwords.UnusableHash):
                    passwords.scheme_of(changed)


def _numbers(stored: str) -> list[str]:
    """*stored* in parts, its costs apart from the rest."""
    return re.split(r"(?<=[$=])(\d+)(?=[,$])", stored)


@pytest.mark.parametrize("name", sorted(HASHES))
def test_the_oracle_knows_each_scheme(name):
    judge_hash(PASSWORD, HASHES[name])

    assert passwords.verify(PASSWORD, HASHES[name])
    assert oracles.made_from(PASSWORD.encode(), HASHES[name])
    assert not oracles.made_from(b"another", HASHES[name])


def test_spare_bits_of_bcrypt_are_zero():
    """passlib would mend them and warn, which is an error where warnings are."""
    stored = HASHES["bcrypt"]

    for place in (28, 59):
        for letter in set("./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789") - {
            stored[place]
        }:
            judge_hash(PASSWORD, stored[:place] + letter + stored[place + 1 :])


@pytest.mark.parametrize("name", sorted(HASHES))
def test_a_password_and_nul_is_another_password(name):
    """PBKDF2 fills up its key with NUL, so to it the two are the same."""
    for secret in (PASSWORD + "\x00", PASSWORD + "\x00\x00", "\x00"):
        judge_hash(secret, HASHES[name])


def test_work_for_nobody_can_be_done_with_every_text():
    """It is what an unknown name costs; a fault there would tell who is known."""
    for secret in ("", "\x00", "\ud800", "é" * 2_048, "x" * 4_096):
        assert not passwords.verify(secret, passwords.DUMMY_HASH)
