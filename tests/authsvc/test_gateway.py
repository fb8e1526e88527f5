"""The one door: every path of a question leads to `answer`."""

from __future__ import annotations

import pytest

from authsvc import gateway
from authsvc.dialects import DIALECTS

pytestmark = pytest.mark.usefixtures("nothing_pending")


def test_every_question_enters_by_the_one_door():
    """What is found by a path is what `answer` is given, with its token and nothing else."""
    for dialect in DIALECTS:
        for name in dialect.questions:
            assert gateway.find(f"{dialect.name}/{name}") == (dialect, name, None)
            assert gateway.find(f"k/t/{dialect.name}/{name}") == (dialect, name, "t")
            assert gateway.find(f"k//{dialect.name}/{name}") == (dialect, name, "")
            assert gateway.find(f"/{dialect.name}/{name}") is None
