"""The check of sentences finds wrong subjects and negations, and lets headings and questions be."""

import pytest

from rig import sentences

pytestmark = pytest.mark.sqlite_only


def found(name, text):
    """Return the numbers of the lines of *text* that the check finds."""
    return [line for line, _ in sentences.find(name, text)]


@pytest.mark.parametrize(
    "line",
    [
        "Whoever changes it runs the bench.",
        "- What was read is cached.",
        "| Nobody waits |",
        "It is kept. Who asks again gets it.",
        "The text is no hash.",
    ],
)
def test_a_wrong_sentence_of_a_page_is_found(line):
    assert found("docs/page.md", f"# Page\n\n{line}\n") == [3]


@pytest.mark.parametrize(
    "line",
    [
        "## What stays",
        "Who may publish?",
        "There is no such device.",
        "It is no longer kept.",
        "The page says what changed and who changed it.",
    ],
)
def test_headings_questions_and_clauses_are_fine(line):
    assert found("docs/page.md", f"{line}\n") == []


def test_a_code_block_is_no_prose():
    assert found("docs/page.md", "```\nWhat is here is code.\n```\nNobody reads it.\n") == [4]


@pytest.mark.parametrize(
    "line",
    ['"""What is stored."""', "# Whatever waits.", 'raise Wrong("it is no number")', 'f"Nobody has {name}"'],
)
def test_texts_and_comments_of_code_are_read(line):
    assert found("module.py", f"name = 1\n{line}\n") == [2]


def test_names_of_code_are_not_read():
    assert found("module.py", "Who = Nobody\n") == []
