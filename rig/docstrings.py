"""`python -m rig.docstrings` checks that the docstring of each function begins with a verb in the imperative.

It reads all Python files that git tracks. Migrations, tests and properties are left out. ruff's D401 checks the
mood of the verbs that it has a word list for; here are the words by which a docstring without a verb begins.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from rig.serving import ROOT

REFUSED = frozenset(
    {
        *(
            "whether",
            "what",
            "who",
            "whose",
            "how",
            "where",
            "when",
            "there",
            "the",
            "a",
            "an",
            "of",
            "it",
            "its",
        ),
        *("this", "that", "these", "those", "each", "every", "all", "any", "some", "no", "one"),
    }
)
# Verbs in the imperative that end in one "s".
IMPERATIVES = frozenset({"alias", "bias", "canvas", "focus"})
# The decorators that make a property; `once` is that of authsvc/dialects/base.py.
PROPERTIES = frozenset({"property", "cached_property", "once"})
FIRST_WORD = re.compile(r"[^\w]*([^\W\d]+)")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def find(source: str) -> Iterator[tuple[int, str, str]]:
    """Yield line, name and first word for each function of *source* whose docstring begins with a wrong word."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Function) and not node.name.startswith("test_") and not _is_property(node):
            first = FIRST_WORD.match(ast.get_docstring(node) or "")
            if first and _is_refused(first[1].lower()):
                yield node.lineno, node.name, first[1]


def _is_refused(word: str) -> bool:
    ends_in_one_s = word.endswith("s") and not word.endswith("ss")
    return word in REFUSED or (ends_in_one_s and word not in IMPERATIVES)


def _is_property(function: Function) -> bool:
    return any(_name(decorator) in PROPERTIES for decorator in function.decorator_list)


def _name(decorator: ast.expr) -> str:
    function = decorator.func if isinstance(decorator, ast.Call) else decorator
    return ast.unparse(function).rpartition(".")[2]


def tracked(root: Path) -> list[str]:
    """Return the Python files that git tracks below *root*, those of script/ among them, without migrations."""
    command = ["git", "ls-files", "*.py", "script/*"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in listed if "/migrations/" not in name and _is_python(root / name)]


def _is_python(file: Path) -> bool:
    return file.is_file() and (file.suffix == ".py" or "python" in file.read_text().partition("\n")[0])


def main(root: Path = ROOT) -> int:
    """Print each finding as `file:line name: first word`. Return 1 if there are any, else 0."""
    found = [(name, *one) for name in tracked(root) for one in find((root / name).read_text())]
    for name, line, function, word in found:
        sys.stdout.write(f"{name}:{line} {function}: {word}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
