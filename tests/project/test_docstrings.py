"""The check of docstrings finds each wrong beginning, in all Python files that git tracks."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rig import docstrings

pytestmark = pytest.mark.sqlite_only


def words_of(source: str) -> list[str]:
    """Return the first words that the check finds in *source*."""
    return [word for _, _, word in docstrings.find(source)]


@pytest.mark.parametrize("word", [*sorted(docstrings.REFUSED), "The", "Returns", "Raises", "Devices"])
def test_a_docstring_without_a_verb_in_the_imperative_is_found(word):
    assert list(docstrings.find(f'def ready():\n    """{word} it."""\n')) == [(1, "ready", word)]


@pytest.mark.parametrize(
    "first",
    ["`Returns`", "*Whether*", "The,", "One:", "whether", "RETURNS", "(The", '["A"]', "The/A", "It's"],
)
def test_marks_around_the_first_word_do_not_hide_it(first):
    assert len(words_of(f'def ready():\n    """{first} it."""\n')) == 1


@pytest.mark.parametrize("word", ["Return", "Pass", "Process", "Focus", "Canvas", "Answer", "Yield"])
def test_verbs_in_the_imperative_are_not_found(word):
    assert words_of(f'def ready():\n    """{word} it."""\n') == []


def test_all_functions_are_checked():
    source = '''
class Device:
    """The class itself may begin with an article."""

    def method(self):
        """A method."""

    async def coroutine(self):
        """A coroutine."""
        def nested():
            """A nested function."""

@pytest.fixture
def station():
    """A fixture."""

def undocumented():
    pass
'''

    assert sorted(name for _, name, _ in docstrings.find(source)) == [
        "coroutine",
        "method",
        "nested",
        "station",
    ]


@pytest.mark.parametrize("decorator", ["property", "cached_property", "functools.cached_property", "once"])
def test_properties_and_tests_are_left_out(decorator):
    assert words_of(f'@{decorator}\ndef name(self):\n    """The name."""\n') == []
    assert words_of(f'@{decorator}()\ndef name(self):\n    """The name."""\n') == []
    assert words_of('def test_a_station_logs_in():\n    """The station is ours."""\n') == []


@pytest.mark.parametrize("decorator", ["run_once", "no_property", "name.setter", "fixture(scope='session')"])
def test_decorators_that_make_no_property_are_not_left_out(decorator):
    assert words_of(f'@{decorator}\ndef name(self):\n    """The name."""\n') == ["The"]


def test_the_command_names_file_line_function_and_word(tmp_path: Path, capsys):
    texts = {
        "good.py": 'def good():\n    """Return one."""\n',
        "bad.py": '\n\ndef bad():\n    """Whether it is."""\n',
        "script/run": '#!/usr/bin/env python3\ndef run():\n    """Runs."""\n',
        "script/shell": "#!/usr/bin/env bash\n",
        "app/migrations/0001_initial.py": 'def fill():\n    """The rows."""\n',
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "good.py"], cwd=tmp_path, check=True)
    assert docstrings.main(tmp_path) == 0
    assert capsys.readouterr().out == ""

    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    assert docstrings.main(tmp_path) == 1
    assert capsys.readouterr().out.splitlines() == ["bad.py:3 bad: Whether", "script/run:2 run: Runs"]
