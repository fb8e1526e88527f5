"""Tests judge mutants: a process of its own that forks one child for each mutant.

`python -m bench.judging PLAN` reads a file of JSON and writes lines of JSON:

1. The tests of a stage run once, with a probe before each statement of the mutated files. So each mutant is judged
   only by tests that reach its statement, and none of them may fail without a mutant.
2. A mutant in the body of a function is judged in a fork of a process that has collected all tests: the code of the
   function is replaced where it stands. A mutant outside of functions, or in a function that runs during the import,
   is judged in a fork that has not imported the mutated package, and imports it with the mutant.
3. The first test that fails ends it. That test must pass without the mutant, alone in a fork; if it does not, it judges
   no mutant any more.

The mutants that survived are then judged in the same way by the tests of the next stage.

A mutant that a test takes much longer with than without is *timed out*, which counts as found.
"""

from __future__ import annotations

import ast
import gc
import importlib
import importlib.abc
import importlib.machinery
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, TextIO

from bench.mutation import Mutant

PRELOADED = ("pytest", "hypothesis", "django.test", "httpx", "jwt", "passlib.context", "structlog", "orjson")
OF_TESTS = frozenset(
    {"tests", "rig", "bench"}
)  # packages that come with the tests, not with the mutated code
KILLED, SURVIVED, TIMED_OUT = "killed", "survived", "timed out"
ELSEWHERE = "to be judged by an import"
CPU_SECONDS = 5  # of one test, beside ten times what it took without a mutant
SILENCE = 600  # seconds without a finished test: a machine may be busy
MEMORY = 4 << 30  # bytes of address space of a child
FILES_FIRST = 3  # test modules that a mutant of an import meets at first; importing all of them takes longer
_COLLECTED_WRONGLY = "the tests cannot be collected"


@dataclass(frozen=True)
class Plan:
    """The task of the process. *root* holds the mutated *modules* (files by name), *folder* the tests.

    *stages* are arguments of pytest: the tests that judge first, those that judge what survived, and so on.
    *seconds* is the time for all of them.
    """

    root: str
    folder: str
    modules: dict[str, str]
    stages: list[list[str]]
    options: list[str]
    seconds: float
    mutants: list[dict[str, Any]]


@dataclass
class Test:
    """A test that passed without a mutant, and the statements that it reached."""

    name: str
    file: str
    order: tuple[int, ...]
    seconds: float
    reached: set[tuple[str, int]] = field(default_factory=set)


# Modules that are imported otherwise than they stand.


class _Loader(importlib.machinery.SourceFileLoader):
    """Imports a file with another text or with probes."""

    def __init__(self, name: str, path: str, code: CodeType, probes: set[tuple[str, int]] | None) -> None:
        super().__init__(name, path)
        self._code = code
        self._probes = probes

    def get_code(self, fullname: str) -> CodeType:
        return self._code

    def exec_module(self, module: ModuleType) -> None:
        if self._probes is not None:
            module.__dict__["__reached__"] = self._probes.add
        super().exec_module(module)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the tests' packages in their folder, all others in the root, and changed modules as code."""

    def __init__(
        self, plan: Plan, changed: dict[str, CodeType], probes: set[tuple[str, int]] | None = None
    ) -> None:
        self._plan = plan
        self._changed = changed
        self._probes = probes

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return where *name* stands, or None for a package of another place."""
        if name in self._changed:
            file = str(Path(self._plan.root, self._plan.modules[name]))
            loader = _Loader(name, file, self._changed[name], self._probes)
            package = [str(Path(file).parent)] if file.endswith("__init__.py") else None
            spec = importlib.machinery.ModuleSpec(name, loader, origin=file, is_package=package is not None)
            spec.has_location = True
            if package is not None:
                spec.submodule_search_locations = package
            return spec
        if path is None:
            place = self._plan.folder if name in OF_TESTS else self._plan.root
            return importlib.machinery.PathFinder.find_spec(name, [place])
        return None


class _Probes(ast.NodeTransformer):
    """Puts `__reached__((module, line))` before each statement of a function."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._inside = False

    def probed(self, tree: ast.Module) -> ast.Module:
        """Return *tree* with probes."""
        self.visit(tree)
        return ast.fix_missing_locations(tree)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        outer = self._inside
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            self._inside = True
        super().generic_visit(node)
        if self._inside:
            for name in ("body", "orelse", "finalbody"):
                block = getattr(node, name, None)
                if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
                    setattr(node, name, [part for statement in block for part in self._with_probe(statement)])
        self._inside = outer
        return node

    def _with_probe(self, statement: ast.stmt) -> list[ast.stmt]:
        """Return a probe and *statement*; a docstring stays the first of its function."""
        match statement:
            case ast.Expr(value=ast.Constant()):
                return [statement]
        place = ast.Tuple([ast.Constant(self._module), ast.Constant(statement.lineno)], ast.Load())
        probe = ast.Expr(ast.Call(ast.Name("__reached__", ast.Load()), [place], []))
        return [ast.copy_location(probe, statement), statement]


def _source(plan: Plan, module: str) -> str:
    return Path(plan.root, plan.modules[module]).read_text()


def _compiled(plan: Plan, module: str, source: str | ast.Module) -> CodeType:
    return compile(source, str(Path(plan.root, plan.modules[module])), "exec", dont_inherit=True)


# The program of a child process.


class _Session:
    """A plugin of pytest: hands the collected tests over instead of running all of them, and hears of failures."""

    def __init__(self, run: Callable[[_Session, Any], None]) -> None:
        self._run = run
        self.failed = False
        self.skipped = False

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.failed = True

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.failed = self.failed or report.failed
        self.skipped = self.skipped or report.skipped

    def pytest_runtestloop(self, session: Any) -> bool:
        self._run(self, session)
        return True

    def passes(self, item: Any, following: Any) -> bool:
        """Run *item*, and return whether it passed."""
        self.failed = False
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        return not self.failed


def _pytest(plan: Plan, arguments: Sequence[str], run: Callable[[_Session, Any], None]) -> _Session:
    """Collect the tests of *arguments* and call *run* with them."""
    import pytest
    from hypothesis import Phase, settings

    # A failing example is enough, and each run draws the same ones.
    settings.register_profile(
        "mutants",
        derandomize=True,
        database=None,
        deadline=None,
        print_blob=False,
        phases=(Phase.explicit, Phase.generate),
    )
    settings.load_profile("mutants")
    os.chdir(plan.folder)
    session = _Session(run)
    preloaded = ["-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]
    pytest.main(
        [*plan.options, *preloaded, "--rootdir", plan.folder, "--tb=line", *arguments], plugins=[session]
    )
    return session


def _child(work: Callable[[TextIO], None]) -> tuple[int, _Lines]:
    """Fork; return the child's id and the lines that *work* writes in the child."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, _Lines(reading)
    try:
        os.setpgid(0, 0)
        os.close(reading)
        _quiet()
        with open(writing, "w", buffering=1) as out:
            try:
                work(out)
            except BaseException:
                traceback.print_exc()
    finally:
        os._exit(0)


def _quiet() -> None:
    """Keep the child off standard output, which belongs to the verdicts, and off standard input."""
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.dup2(2, 1)


class _Lines:
    """The lines of JSON that a child writes into a pipe."""

    def __init__(self, reading: int) -> None:
        self._reading = reading
        self._rest = b""

    def take(self) -> dict[str, Any] | None:
        """Return the next line, or None at the end; raise TimeoutError if it does not come for long."""
        while b"\n" not in self._rest:
            if not select.select([self._reading], [], [], SILENCE)[0]:
                raise TimeoutError
            part = os.read(self._reading, 1 << 20)
            if not part:
                return None
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return dict(json.loads(line))

    def close(self) -> None:
        os.close(self._reading)


def _end(child: int) -> None:
    """Kill *child* and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)


def _judge(session: _Session, items: Sequence[Any], seconds: Sequence[float], out: TextIO) -> None:
    """Run *items* until one fails, each with its time of the processor; write each that is over."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends the process
    for number, item in enumerate(items):
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS + 10 * seconds[number])
        following = items[number + 1] if number + 1 < len(items) else None
        passed = session.passes(item, following)
        print(json.dumps({"test": item.nodeid, "passed": passed}), file=out)
        if not passed:
            break
    else:
        print(json.dumps({"verdict": SURVIVED}), file=out)
    out.flush()
    os._exit(0)


class Court:
    """The tests of one stage, and the process that forks. *tests* are those that passed without a mutant."""

    def __init__(self, plan: Plan, arguments: list[str]) -> None:
        self._plan = plan
        self._arguments = arguments
        self._sources = {module: _source(plan, module) for module in plan.modules}
        self._modules = {file: module for module, file in plan.modules.items()}
        self._during_import: set[tuple[str, int]] = set()
        self._trusted: set[str] = set()
        self._unfit: set[str] = set()
        self.tests: list[Test] = []
        self.failing: list[str] = []
        self._server: tuple[int, int, _Lines] | None = None

    # 1. All tests, once.

    def measure(self) -> None:
        """Run every test once, with probes."""
        child, lines = _child(self._run_with_probes)
        while said := lines.take():
            if "import" in said:
                self._during_import = {(module, line) for module, line in said["import"]}
                continue
            reached = {(module, line) for module, line in said.pop("reached")}
            if said.pop("passed"):
                said["order"] = tuple(said["order"])
                self.tests.append(Test(**said, reached=reached))
            else:
                self.failing.append(said["name"])
        _end(child)
        os.waitpid(child, 0)
        lines.close()
        self.tests.sort(key=lambda test: (test.order, test.seconds, test.name))

    def _run_with_probes(self, out: TextIO) -> None:
        reached: set[tuple[str, int]] = set()
        changed = {
            module: _compiled(self._plan, module, _Probes(module).probed(ast.parse(source)))
            for module, source in self._sources.items()
        }
        sys.meta_path.insert(0, _Finder(self._plan, changed, reached))
        for module in self._plan.modules:
            importlib.import_module(module)
        print(json.dumps({"import": sorted(reached)}), file=out)

        def run(session: _Session, collected: Any) -> None:
            items, rounds = collected.items, dict[str, int]()
            for number, item in enumerate(items):
                reached.clear()
                session.skipped = False
                began = time.process_time()
                passed = session.passes(item, items[number + 1] if number + 1 < len(items) else None)
                function = item.nodeid.partition("[")[0]
                rounds[function] = rounds.get(function, -1) + 1
                said = {
                    "name": item.nodeid,
                    "file": str(item.path),
                    # Copies of one test with other parameters come after other tests, a database after none.
                    "order": [rounds[function], _is_slow_to_start(item)],
                    "seconds": round(time.process_time() - began, 4),
                    "reached": sorted(reached),
                    "passed": passed,
                }
                if not session.skipped:
                    print(json.dumps(said), file=out)
            out.flush()
            os._exit(0)

        _pytest(self._plan, self._arguments, run)

    # 2. One mutant.

    def judge(self, mutant: Mutant) -> dict[str, Any]:
        """Return the verdict on *mutant*: killed with the test, survived, or timed out."""
        if self._server is None:
            self._server = self._start_server()
        module = self._modules[mutant.module]
        while True:
            tests = self._judges(module, mutant)
            if not tests:
                return {"verdict": SURVIVED, "tests": 0}
            if mutant.in_function and (module, mutant.statement) not in self._during_import:
                result = self._in_place(module, mutant, tests)
            else:
                result = self._by_import(module, mutant, tests)
            if result["verdict"] == ELSEWHERE:
                result = self._by_import(module, mutant, tests)
            culprit = result.get("by")
            judges = {test.name for test in tests}
            if result["verdict"] == KILLED and culprit in judges and not self._can_be_trusted(culprit):
                continue
            return {**result, "tests": len(tests)}

    def _judges(self, module: str, mutant: Mutant) -> list[Test]:
        """Return the tests that can notice *mutant*, the quick ones first."""

        def reaches(test: Test) -> bool:
            if mutant.in_function and (module, mutant.statement) not in self._during_import:
                return (module, mutant.statement) in test.reached
            # A test that reaches no function may compare constants.
            return not test.reached or any(reached == module for reached, _ in test.reached)

        return [test for test in self.tests if test.name not in self._unfit and reaches(test)]

    def _can_be_trusted(self, name: str) -> bool:
        """Return whether the test *name* passes without a mutant and without the tests before it."""
        if name not in self._trusted:
            result = self._serve({"module": "", "tests": [name], "seconds": [1.0]})
            if result["verdict"] != SURVIVED:
                self._unfit.add(name)
                return False
            self._trusted.add(name)
        return True

    def _in_place(self, module: str, mutant: Mutant, tests: list[Test]) -> dict[str, Any]:
        return self._serve(
            {
                "module": module,
                "function": mutant.function,
                "source": mutant.apply(self._sources[module]),
                "tests": [test.name for test in tests],
                "seconds": [test.seconds for test in tests],
            }
        )

    def _by_import(self, module: str, mutant: Mutant, tests: list[Test]) -> dict[str, Any]:
        files = list(dict.fromkeys(test.file for test in tests))
        result: dict[str, Any] = {"verdict": SURVIVED}
        for part in (files[:FILES_FIRST], files[FILES_FIRST:]):
            if part and result["verdict"] == SURVIVED:
                result = self._imported(module, mutant, part, [test for test in tests if test.file in part])
        return result

    def _imported(self, module: str, mutant: Mutant, files: list[str], tests: list[Test]) -> dict[str, Any]:
        seconds = {test.name: test.seconds for test in tests}
        ranks = {test.name: number for number, test in enumerate(tests)}

        def work(out: TextIO) -> None:
            code = _compiled(self._plan, module, mutant.apply(self._sources[module]))
            sys.meta_path.insert(0, _Finder(self._plan, {module: code}))

            def run(session: _Session, collected: Any) -> None:
                known = [item for item in collected.items if item.nodeid in ranks]
                known.sort(key=lambda item: ranks[item.nodeid])
                if session.failed or len(known) < len(ranks):
                    # Tests whose names hold what was mutated are missing, or a module cannot be imported.
                    print(json.dumps({"test": _COLLECTED_WRONGLY, "passed": False}), file=out)
                    out.flush()
                    os._exit(0)
                _judge(session, known, [seconds[item.nodeid] for item in known], out)

            _pytest(self._plan, files, run)
            print(json.dumps({"test": _COLLECTED_WRONGLY, "passed": False}), file=out)

        child, lines = _child(work)
        result = _verdict(lines)
        result.pop("over", None)
        _end(child)
        os.waitpid(child, 0)
        lines.close()
        return result

    # The process that has collected all tests, and forks for each mutant of a function.

    def _serve(self, task: dict[str, Any]) -> dict[str, Any]:
        """Return the verdict of a fork of that process."""
        assert self._server is not None
        _, orders, lines = self._server
        os.write(orders, json.dumps(task).encode() + b"\n")
        started = lines.take()
        assert started is not None, "the tests cannot be collected"
        result = _verdict(lines)
        _end(started["child"])
        over = result.pop("over", False)
        while not over:
            over = "over" in (lines.take() or {"over": True})
        return result

    def _start_server(self) -> tuple[int, int, _Lines]:
        """Start that process. Tests with a name that is another one there, such as a random one, do not judge."""
        taking, orders = os.pipe()

        def work(out: TextIO) -> None:
            os.close(orders)
            sys.meta_path.insert(0, _Finder(self._plan, {}))
            _pytest(
                self._plan,
                self._arguments,
                lambda session, collected: self._forks(session, collected, taking, out),
            )

        child, lines = _child(work)
        os.close(taking)
        said = lines.take()
        assert said is not None, "the tests cannot be collected a second time"
        self._unfit |= {test.name for test in self.tests} - set(said["collected"])
        return child, orders, lines

    def _forks(self, session: _Session, collected: Any, taking: int, out: TextIO) -> None:
        """Be that process: fork for each line that comes."""
        items = {item.nodeid: item for item in collected.items}
        functions = _functions(self._plan)
        print(json.dumps({"collected": list(items)}), file=out, flush=True)
        for line in open(taking):  # noqa: SIM115 - open until the process ends
            task = json.loads(line)
            child = os.fork()
            if not child:
                try:
                    os.setpgid(0, 0)
                    print(json.dumps({"child": os.getpid()}), file=out, flush=True)
                    _replace(self._plan, task, functions)
                    _judge(session, [items[name] for name in task["tests"]], task["seconds"], out)
                except ValueError:  # the code needs other variables of its surroundings
                    print(json.dumps({"verdict": ELSEWHERE}), file=out, flush=True)
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
            print(json.dumps({"over": True}), file=out, flush=True)
        os._exit(0)

    def close(self) -> None:
        """End that process."""
        if self._server is not None:
            child, orders, lines = self._server
            os.close(orders)
            lines.close()
            os.waitpid(child, 0)


def _verdict(lines: _Lines) -> dict[str, Any]:
    """Return the verdict of the child that writes *lines*, with the test that noticed the mutant.

    *over* is in it if the child had ended without a verdict, because a test took too much of the processor.
    """
    last, over = "", False
    try:
        while not over and (said := lines.take()):
            if "verdict" in said:
                return said
            if "over" in said:
                over = True
                continue
            last = said["test"]
            if not said["passed"]:
                return {"verdict": KILLED, "by": last}
    except TimeoutError:
        pass
    return {"verdict": TIMED_OUT, "by": f"the test after {last}" if last else "the first test", "over": over}


def _functions(plan: Plan) -> dict[tuple[str, str], list[FunctionType]]:
    """Return the functions of the modules of *plan*, by module and qualified name."""
    modules = {str(Path(plan.root, file)): module for module, file in plan.modules.items()}
    found: dict[tuple[str, str], list[FunctionType]] = {}
    for each in gc.get_objects():
        if type(each) is FunctionType and each.__code__.co_filename in modules:
            code = each.__code__
            found.setdefault((modules[code.co_filename], code.co_qualname), []).append(each)
    return found


def _replace(plan: Plan, task: dict[str, Any], functions: dict[tuple[str, str], list[FunctionType]]) -> None:
    """Give the function of *task* the code of its mutant; raise ValueError if that is not possible."""
    if not task["module"]:
        return
    code = _code(_compiled(plan, task["module"], task["source"]), task["function"])
    living = functions.get((task["module"], task["function"]))
    if code is None or not living:
        raise ValueError("the function is not found")
    for function in living:
        function.__code__ = code


def _code(code: CodeType, name: str) -> CodeType | None:
    """Return the code of the function *name* inside of *code*."""
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            if inner.co_qualname == name:
                return inner
            found = _code(inner, name)
            if found is not None:
                return found
    return None


def _is_slow_to_start(item: Any) -> bool:
    """Return whether a test needs a database, which each child has to make."""
    return not {"db", "transactional_db", "django_db_setup"}.isdisjoint(getattr(item, "fixturenames", ()))


def main(file: str) -> None:
    """Judge the mutants of the plan in *file* until its time is over; print each verdict."""
    plan = Plan(**json.loads(Path(file).read_text()))
    sys.path[:] = [place for place in sys.path if Path(place or ".").resolve() != Path(plan.root).resolve()]
    for name in PRELOADED:
        with suppress(ImportError):
            importlib.import_module(name)
    began = time.monotonic()
    waiting = [Mutant(**given) for given in plan.mutants]
    numbers = {mutant: number for number, mutant in enumerate(waiting)}
    for stage, arguments in enumerate(plan.stages, start=1):
        if not waiting or time.monotonic() > began + plan.seconds:
            break
        until = began + plan.seconds * (1 + stage) / (1 + len(plan.stages))  # most of it for the first stage
        court = Court(plan, arguments)
        court.measure()
        print(json.dumps({"measured": len(court.tests), "failing": court.failing}), flush=True)
        survived = []
        for mutant in waiting:
            if time.monotonic() > until:
                break
            start = time.monotonic()
            result = court.judge(mutant)
            result["seconds"] = round(time.monotonic() - start, 2)
            print(json.dumps({"number": numbers[mutant], "stage": stage, **result}), flush=True)
            if result["verdict"] == SURVIVED:
                survived.append(mutant)
        court.close()
        waiting = survived


if __name__ == "__main__":
    main(sys.argv[1])
