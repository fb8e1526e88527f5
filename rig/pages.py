"""The pages of the documentation, and the marked code blocks in them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
BENCHES = ROOT / "bench" / "README.md"
PAGES = sorted(
    [*ROOT.glob("*.md"), BENCHES, *(p for p in DOCS.rglob("*.md") if p.parent.name != "decisions")]
)
# Blocks that a test compares with the output of those that ran: line by line, or only the members of their JSON.
PRINTED = "printed"
PRINTED_LIKE = "printed, with other values"


class Block(NamedTuple):
    """A code block of a page. *mark* is the comment above it: `run`, `printed`, `file: NAME` and the like."""

    mark: str
    language: str
    text: str


def page(name: str) -> str:
    """Return the text of the page *name*, a path below docs/."""
    return (DOCS / name).read_text()


def fenced(text: str) -> list[Block]:
    """Return the code blocks of *text* in order."""
    found = re.findall(r"^(?:<!-- ([^\n]+) -->\n)?```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(*block) for block in found]


def blocks(text: str, language: str, mark: str = "") -> list[str]:
    """Return the code blocks of *language*; with *mark*, only those below that comment."""
    return [block.text for block in fenced(text) if block.language == language and mark in ("", block.mark)]


def marked(text: str, mark: str) -> list[str]:
    """Return the code blocks of *text* below the comment *mark*, of any language."""
    return [block.text for block in fenced(text) if block.mark == mark]


def missing_lines(text: str, output: str) -> list[str]:
    """Return the lines of the `printed` blocks of *text* that *output* does not have."""
    missing = [line for block in marked(text, PRINTED) for line in block.splitlines() if line not in output]
    decode = json.JSONDecoder().raw_decode
    answers = [decode(line)[0].keys() for line in output.splitlines() if line.startswith('{"')]
    return missing + [
        block for block in marked(text, PRINTED_LIKE) if json.loads(block).keys() not in answers
    ]
