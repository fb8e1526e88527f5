"""A secret in a variable of our functions does not reach a handler, for every logger that writes the traceback."""

from __future__ import annotations

import ast
import logging
from pathlib import Path

import structlog

import authsvc
from authsvc import logs
from rig import leaks

FOLDER = Path(authsvc.__file__).parent
FILES = sorted(FOLDER.rglob("*.py"))
PASSWORD = "Rq8vZ1kXw0pTn5uYb7LmJc3sDfGh2eAi"  # gitleaks:allow


def module_of(file: Path) -> str:
    """Return the dotted name of the module in *file*, which is also that of its logger."""
    parts = file.relative_to(FOLDER.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def test_no_logger_of_ours_shows_a_variable():
    def breaks(password: str) -> None:
        raise RuntimeError("provoked")

    with leaks.everything_logged() as logged:
        for module in map(module_of, FILES):
            before = len(logged.lines)
            try:
                breaks(PASSWORD)
            except RuntimeError:
                logging.getLogger(module).exception("of the standard library")
                structlog.get_logger(module).exception("of structlog")

            written = "\n".join(logged.lines[before:])
            assert "RuntimeError: provoked" in written, module
            assert leaks.leaked(written, [PASSWORD]) == [], module


def test_every_module_has_a_guarded_logger():
    assert set(logs.modules(FOLDER, "authsvc")) == {module_of(file) for file in FILES}


def test_loggers_have_the_names_of_their_modules():
    """The names of the guarded loggers are derived from the modules."""
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "structlog.get_logger",
                "structlog.stdlib.get_logger",
            ):
                assert [ast.unparse(argument) for argument in node.args] == ["__name__"], file
