"""`python -m rig.sentences` checks that no sentence has a person or a question word as its subject.

It reads the pages, templates, comments and texts that git tracks, except migrations and the code blocks of pages.
Headings and questions may begin with these words.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

from rig.serving import ROOT

SUBJECT = re.compile(r"(?:^|[.;:] )(?:What|Who|Whom|Whoever|Whatever|Nobody)\b[^?]*$")
# "The value is no number" instead of "is not a number".
NEGATION = re.compile(r"(?<!here )\b(?:is|are|was|were) no (?!longer\b|more\b)[a-z]")
# Files that quote wrong sentences.
QUOTING = {"rig/sentences.py", "tests/project/test_sentences.py"}
CODE_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
TEXTS = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
OPENING = re.compile(r"^(?:[-*|]|# ---|#|[rbf]?[\"']+|\d+\.)\s*")


def find(name: str, text: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of each line of file *name* with such a sentence."""
    for number, line in _prose(name, text):
        said = OPENING.sub("", line.strip())
        if SUBJECT.search(said) or NEGATION.search(said):
            yield number, line.strip()


def _prose(name: str, text: str) -> Iterator[tuple[int, str]]:
    if name.endswith(".py"):
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type in TEXTS:
                yield from enumerate(token.string.split("\n"), token.start[0])
        return
    without_code = CODE_BLOCK.sub(lambda block: "\n" * block[0].count("\n"), text)
    for number, line in enumerate(without_code.split("\n"), 1):
        if not line.startswith("#"):
            yield number, line


def main(root: Path = ROOT) -> int:
    """Print each finding as `file:line: text`. Return 1 if there are any, else 0."""
    command = ["git", "ls-files", "*.py", "*.md", "*.html"]
    names = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.splitlines()
    found = [
        (name, *one)
        for name in names
        if "/migrations/" not in name and name not in QUOTING and (root / name).is_file()
        for one in find(name, (root / name).read_text())
    ]
    for name, line, text in found:
        sys.stdout.write(f"{name}:{line}: {text}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
