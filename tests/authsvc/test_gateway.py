"""The single entry point: every path of a question leads to `answer`."""

from __future__ import annotations

import pytest

from authsvc import gateway
from authsvc.dialects import DIALECTS

pytestmark = pytest.mark.usefixtures("nothing_pending")


def test_every_question_is_answered_by_the_gateway():
    """`answer` gets the dialect and the question of the path, and the token in it."""
    for dialect in DIALECTS:
        for name in dialect.questions:
            assert gateway.find(f"{dialect.name}/{name}") == (dialect, name, None)
            assert gateway.find(f"k/t/{dialect.name}/{name}") == (dialect, name, "t")
            assert gateway.find(f"k//{dialect.name}/{name}") == (dialect, name, "")
            assert gateway.find(f"/{dialect.name}/{name}") is None
