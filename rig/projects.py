"""Django projects that the blocks of a page make, in their order: `<!-- project: ... -->` above a block says how."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


def steps(page: Path) -> list[tuple[str, str]]:
    """Return the blocks of *page* that make a project, each with its instruction, in order."""
    marked = r"^<!-- project: ([^\n]+) -->\n```\w*\n(.*?)^```$"
    return re.findall(marked, page.read_text(), re.MULTILINE | re.DOTALL)


@dataclass
class Project:
    """A project in its *folder*, with the *environment* of its processes."""

    folder: Path
    environment: dict[str, str]

    def run(self, script: str) -> str:
        """Return what the shell *script* printed. Raise AssertionError with all its output if it fails."""
        done = subprocess.run(
            ["sh", "-euc", script],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}"
        return done.stdout

    def follow(self, page: Path) -> Iterator[str]:
        """Do what *page* shows, and yield the text of each block that is not a step of making the project.

        Steps are `run`, `file NAME` and `end of NAME`. A block `printed` is compared with what was printed before it.
        """
        printed = ""
        for instruction, block in steps(page):
            match instruction.split():
                case ["run"]:
                    printed += self.run(block)
                case ["file", name]:
                    (self.folder / name).write_text(block)
                case ["end", "of", name]:
                    with (self.folder / name).open("a") as file:
                        file.write(block)
                case ["printed"]:
                    assert [line for line in block.splitlines() if line not in printed] == [], printed
                case _:
                    yield block
