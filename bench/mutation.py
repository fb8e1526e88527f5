"""Mutants of Python source: small changes of behaviour, drawn from the syntax tree and written as text.

Not mutated, because no test should compare them: docstrings, annotations, decorators, imports, assertions, the
arguments of a raised error, calls of a log, strings of `__repr__`, and every text of four words or more.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

MODULE = "<module>"  # where a statement stands outside of every function
WORDS_OF_A_MESSAGE = 4  # "text/plain; charset=utf-8" is a word of the wire, a sentence is not
COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
CALLS = {
    "any": "all",
    "min": "max",
    "startswith": "endswith",
    "lower": "upper",
    "partition": "rpartition",
    "removesuffix": "removeprefix",
    "match": "fullmatch",
    "search": "match",
}
CALLS |= {other: name for name, other in CALLS.items() if other not in CALLS}
# Their operands bind more loosely or as loosely as theirs, so a changed one is put in parentheses.
_LOOSE = (ast.BoolOp, ast.Compare, ast.BinOp, ast.UnaryOp, ast.IfExp, ast.Lambda, ast.Await, ast.NamedExpr)
_BINDING = (*_LOOSE, ast.Attribute, ast.Subscript, ast.Starred)
_Placed = ast.expr | ast.stmt | ast.keyword
_COMMENT = re.compile(r"\s+# .*$")
_LITERAL = re.compile(r"""(?s)([rbfRBF]*)("|')((?:(?!\2)[^\\\n]|\\.)*)\2""")


@dataclass(frozen=True)
class Mutant:
    """One change. *before* and *after* are the lines that differ, without indentation; *line* is the first.

    *nth* counts the mutants of *function* with the same *before* and *after*, from 1.

    *statement* is the line where the statement begins that holds the change: a test that does not reach it
    cannot notice. *start* and *end* are the bytes that *text* replaces.
    """

    module: str
    function: str
    line: int
    before: str
    after: str
    statement: int
    start: int
    end: int
    text: str
    nth: int = 1

    @property
    def in_function(self) -> bool:
        """Whether the change is in the body of a function, so that it needs no import to be made."""
        return self.statement > 0

    @property
    def key(self) -> tuple[str, ...]:
        """The mutant without its place: lines move, the change stays."""
        return mutant_key(self.module, self.function, self.before, self.after, self.nth)

    @property
    def name(self) -> str:
        """A short name, the same in every run."""
        return sha256("\0".join(self.key).encode()).hexdigest()[:8]

    def rank(self, seed: int) -> str:
        """Return the place in the order of *seed*, which no other mutant changes."""
        return sha256("\0".join((str(seed), *self.key)).encode()).hexdigest()

    def apply(self, source: str) -> str:
        """Return *source* with the change."""
        data = source.encode()
        return (data[: self.start] + self.text.encode() + data[self.end :]).decode()

    def diff(self) -> str:
        """Return the changed lines with `-` and `+` before them."""
        sides = (("-", self.before), ("+", self.after))
        return "\n".join(f"{sign} {line}" for sign, text in sides for line in text.splitlines())


def mutant_key(module: str, function: str, before: str, after: str, nth: int) -> tuple[str, ...]:
    """Return what names a mutant, in which *nth* stands only if there is a mutant like it before."""
    return module, function, before, after, *([str(nth)] if nth > 1 else [])


def mutants(module: str, source: str) -> list[Mutant]:
    """Return all mutants of the file *module*, which holds *source*, in the order of their lines."""
    walk = _Walk(source)
    statements = ast.parse(source).body
    walk.block(statements, "", within_function=False)
    data = source.encode()
    found: dict[tuple[int, int, str], Mutant] = {}
    for change in walk.changes:
        place = (change.start, change.end, change.text)
        if place not in found and _is_another_program(
            walk.statement_around(change, statements), data, change
        ):
            found[place] = _mutant(module, data, change)
    alike: Counter[tuple[str, ...]] = Counter()
    numbered = []
    for mutant in sorted(found.values(), key=lambda mutant: (mutant.start, mutant.end, mutant.text)):
        alike[mutant.key] += 1
        numbered.append(replace(mutant, nth=alike[mutant.key]))
    return numbered


@dataclass(frozen=True)
class _Change:
    function: str
    statement: int
    start: int
    end: int
    text: str


def _is_another_program(place: tuple[int, int], data: bytes, change: _Change) -> bool:
    """Return whether *change*, within the statement at *place*, is Python and means something else."""
    start, end = place
    old, new = data[start:end], data[start : change.start] + change.text.encode() + data[change.end : end]
    try:
        return ast.dump(ast.parse(new)) != ast.dump(ast.parse(old))
    except SyntaxError:
        return False


def _mutant(module: str, data: bytes, change: _Change) -> Mutant:
    """Return the mutant of *change*, with the lines that differ."""
    first = data.rfind(b"\n", 0, change.start) + 1
    last = data.find(b"\n", change.end)
    last = len(data) if last < 0 else last
    before = data[first:last].decode()
    after = (data[first : change.start] + change.text.encode() + data[change.end : last]).decode()
    old, new = _stripped(before), _stripped(after)
    shared = 0
    while shared < min(len(old), len(new)) - 1 and old[shared] == new[shared]:
        shared += 1
    while len(old) > shared + 1 and len(new) > shared + 1 and old[-1] == new[-1]:
        old, new = old[:-1], new[:-1]
    return Mutant(
        module,
        change.function,
        data.count(b"\n", 0, first) + 1 + shared,
        "\n".join(old[shared:]),
        "\n".join(new[shared:]),
        change.statement,
        change.start,
        change.end,
        change.text,
    )


def _stripped(text: str) -> list[str]:
    """Return the lines of *text* without indentation and comments."""
    return [_COMMENT.sub("", line).strip() for line in text.split("\n")]


class _Walk:
    """Collects the changes of one file."""

    def __init__(self, source: str) -> None:
        self.changes: list[_Change] = []
        self._lines = [0]
        for line in source.encode().splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))
        self._source = source.encode()
        self._function = MODULE
        self._statement = 0
        self._quiet = False  # in a method that shows its object: its strings are for people

    # Statements.

    def block(
        self, statements: list[ast.stmt], prefix: str, *, within_function: bool, guard: bool = False
    ) -> None:
        """Collect the changes of *statements*; *guard* says that they are the body of an `if`."""
        for statement in statements:
            self._function = prefix or MODULE
            self._statement = statement.lineno if within_function else 0
            self._visit(statement, prefix, within_function=within_function, guard=guard)

    def _visit(self, statement: ast.stmt, prefix: str, *, within_function: bool, guard: bool) -> None:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self._define(statement, prefix, within_function=within_function)
                return
            case ast.ClassDef(name=name, body=body):
                self.block(body, f"{prefix}.{name}" if prefix else name, within_function=within_function)
                return
            case ast.Import() | ast.ImportFrom() | ast.Assert() | ast.Global() | ast.Nonlocal() | ast.Pass():
                return
            case ast.Expr(value=ast.Constant() | ast.Yield()):
                return
            case ast.Expr(value=value):
                self._replace(statement, "pass")
                if not _is_log(value):
                    self._expression(value)
            case ast.Raise():
                self._replace(statement, "pass")
            case ast.Return(value=value):
                if value is not None:
                    if not isinstance(value, ast.Constant):
                        self._replace(value, "None")
                    self._expression(value)
                if guard:
                    self._replace(statement, "pass")
            case ast.Continue():
                self._replace(statement, "break")
            case ast.Break():
                self._replace(statement, "continue")
            case ast.Assign(targets=targets, value=value):
                if within_function and any(isinstance(t, ast.Attribute | ast.Subscript) for t in targets):
                    self._replace(statement, "pass")
                if within_function or not _is_alias(value):
                    self._expression(value)
            case ast.AnnAssign(value=value):
                if value is not None:
                    self._expression(value)
            case ast.AugAssign(op=operator, target=target, value=value):
                self._replace(statement, "pass")
                other = OPERATORS.get(type(operator))
                if other is not None:
                    changed = ast.AugAssign(target=target, op=other(), value=value)
                    self._replace(statement, _text(changed))
                self._expression(value)
        for test in _tests(statement):
            self._condition(test)
        for value in _heads(statement):
            self._expression(value)
        for body in _bodies(statement):
            inside = isinstance(statement, ast.If) and body is statement.body
            here = self._function, self._statement
            self.block(body, prefix, within_function=within_function, guard=inside)
            self._function, self._statement = here
        for handler in getattr(statement, "handlers", []):
            if handler.type is not None:
                self._expression(handler.type)
            here = self._function, self._statement
            if not isinstance(handler.body[0], ast.Raise):
                self._statement = handler.body[0].lineno if within_function else 0
                self._replace(handler.body[0], "raise")
            self.block(handler.body, prefix, within_function=within_function)
            self._function, self._statement = here

    def _define(
        self, function: ast.FunctionDef | ast.AsyncFunctionDef, prefix: str, *, within_function: bool
    ) -> None:
        """Collect the changes of defaults, which belong to the module, and of the body."""
        outer = self._quiet
        name = f"{prefix}.{function.name}" if prefix else function.name
        self._function = name
        for default in (*function.args.defaults, *function.args.kw_defaults):
            if default is not None:
                self._expression(default)
        self._quiet = outer or function.name in ("__repr__", "__str__")
        if within_function:
            name = prefix  # a nested function is part of the code of the outer one
        self.block(function.body, name, within_function=True)
        self._quiet = outer

    # Expressions.

    def _condition(self, test: ast.expr) -> None:
        """Collect the opposite of a test that no change of its operators negates."""
        if not isinstance(test, ast.Compare | ast.BoolOp | ast.UnaryOp | ast.Constant):
            self._replace(test, f"not {_parenthesised(test)}")

    def _expression(self, node: ast.expr, parent: ast.AST | None = None) -> None:
        for changed in _changed(node):
            text = _text(changed)
            if (
                isinstance(parent, _BINDING)
                and isinstance(changed, _LOOSE)
                and not self._in_parentheses(node)
            ):
                text = f"({text})"
            self._replace(node, text)
        match node:
            case ast.Tuple(elts=elements):
                self._shorten(elements, alone=",")
            case ast.List(elts=elements) | ast.Set(elts=elements):
                self._shorten(elements)
            case ast.Dict(keys=keys, values=values):
                self._shorten([key or value for key, value in zip(keys, values, strict=True)], values)
            case ast.Call(args=arguments, keywords=keywords):
                self._shorten(keywords)
                if len(arguments) > 1 and not isinstance(arguments[-1], ast.Constant | ast.Starred):
                    self._replace(arguments[-1], "None")
            case ast.Constant(value=str() | bytes() as value):
                self._literal(node, value)
            case ast.JoinedStr(values=values):
                # Positions inside of it are wrong before Python 3.12, so it changes as a whole.
                said = "".join(str(part.value) for part in values if isinstance(part, ast.Constant))
                self._literal(node, said)
                return
            case ast.IfExp(test=test):
                self._condition(test)
        for child in _children(node):
            self._expression(child, node)
        for each in getattr(node, "generators", []):
            self._expression(each.iter)
            for test in each.ifs:
                self._condition(test)
                self._expression(test)

    def _literal(self, node: ast.expr, value: str | bytes) -> None:
        """Collect another text in place of *node*, unless it is a message."""
        if self._quiet or len(value.split()) >= WORDS_OF_A_MESSAGE:
            return
        start, end = self._span(node)
        written = _LITERAL.fullmatch(self._source[start:end].decode())
        if written is not None:
            kind, quote, text = written.groups()
            self._add(start, end, f"{kind}{quote}X{text}X{quote}" if text else f"{kind}{quote}X{quote}")
        elif isinstance(node, ast.Constant):
            self._add(start, end, repr(b"X" + value if isinstance(value, bytes) else "X" + value))
        elif isinstance(node, ast.JoinedStr):
            self._add(start, end, _text(ast.JoinedStr([ast.Constant("X"), *node.values])))

    def _shorten(
        self, firsts: Sequence[_Placed], lasts: Sequence[_Placed] | None = None, *, alone: str = ""
    ) -> None:
        """Collect a list without each of its items, which begin with *firsts* and end with *lasts*.

        *alone* is written behind an item that is left alone.
        """
        starts = [self._span(node)[0] for node in firsts]
        ends = [self._span(node)[1] for node in lasts or firsts]
        for number in range(len(starts)):
            text = alone if len(starts) == 2 else ""
            if len(starts) == 1:
                self._add(starts[0], ends[0], "")
            elif number + 1 == len(starts):
                self._add(ends[number - 1], ends[number], text)
            elif text:
                self._add(starts[number], ends[-1], self._source[starts[1] : ends[1]].decode() + text)
            else:
                self._add(starts[number], starts[number + 1], "")

    # Places.

    def statement_around(self, change: _Change, statements: list[ast.stmt]) -> tuple[int, int]:
        """Return the bytes of that one of *statements* that holds *change*, with its decorators."""
        for statement in statements:
            start, end = self._span(statement)
            for decorator in getattr(statement, "decorator_list", []):
                start = min(start, self._span(decorator)[0] - 1)  # its @
            if start <= change.start and change.end <= end:
                return start, end
        return 0, len(self._source)

    def _in_parentheses(self, node: ast.expr) -> bool:
        start, end = self._span(node)
        return self._source[start - 1 : start] == b"(" and self._source[end : end + 1] == b")"

    def _span(self, node: _Placed) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return (
            self._lines[node.lineno - 1] + node.col_offset,
            self._lines[node.end_lineno - 1] + node.end_col_offset,
        )

    def _replace(self, node: _Placed, text: str) -> None:
        self._add(*self._span(node), text)

    def _add(self, start: int, end: int, text: str) -> None:
        self.changes.append(_Change(self._function, self._statement, start, end, text))


def _changed(node: ast.expr) -> Iterator[ast.expr]:
    """Yield what stands in place of *node* in its mutants, apart from texts."""
    match node:
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield ast.Constant(value + 1)
        case ast.Compare(left=left, ops=[operator], comparators=comparators):
            for other in COMPARISONS[type(operator)]:
                yield ast.Compare(left, [other()], comparators)
        case ast.Compare(left=left, ops=operators, comparators=comparators):
            for number, operator in enumerate(operators):
                for other in COMPARISONS[type(operator)]:
                    ops = [*operators[:number], other(), *operators[number + 1 :]]
                    yield ast.Compare(left, ops, comparators)
        case ast.BoolOp(op=operator, values=values):
            yield ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values)
            for rest in _without_one(values):
                yield rest[0] if len(rest) == 1 else ast.BoolOp(operator, rest)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            yield operand
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in OPERATORS:
            yield ast.BinOp(left, OPERATORS[type(operator)](), right)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=keywords) if name in CALLS:
            yield ast.Call(ast.Name(CALLS[name]), arguments, keywords)
        case ast.Call(func=ast.Attribute(value=value, attr=name), args=arguments, keywords=keywords) if (
            name in CALLS
        ):
            yield ast.Call(ast.Attribute(value, CALLS[name]), arguments, keywords)


def _without_one(items: list[Any]) -> Iterator[list[Any]]:
    """Yield *items* as often as there are items, each time without another one."""
    for number in range(len(items)):
        yield [*items[:number], *items[number + 1 :]]


def _children(node: ast.expr) -> Iterator[ast.expr]:
    """Yield the expressions directly inside of *node*, those of comprehensions apart."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            yield child
        elif isinstance(child, ast.keyword):
            yield child.value


def _tests(statement: ast.stmt) -> Iterator[ast.expr]:
    """Yield the expressions whose truth *statement* tests."""
    match statement:
        case ast.If(test=test) | ast.While(test=test):
            yield test
        case ast.Match(cases=cases):
            yield from (case.guard for case in cases if case.guard is not None)


def _heads(statement: ast.stmt) -> Iterator[ast.expr]:
    """Yield the expressions in the head of a statement that has a body."""
    yield from _tests(statement)
    match statement:
        case ast.For(iter=subject) | ast.AsyncFor(iter=subject) | ast.Match(subject=subject):
            yield subject
        case ast.With(items=items) | ast.AsyncWith(items=items):
            yield from (item.context_expr for item in items)


def _bodies(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    """Yield the blocks inside of *statement*, those of exception handlers apart."""
    for name in ("body", "orelse", "finalbody"):
        yield getattr(statement, name, [])
    yield from (case.body for case in getattr(statement, "cases", []))


def _is_log(node: ast.expr) -> bool:
    """Return whether *node* is a call of a logger, such as `log.warning(...)`."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="log" | "logger"))):
            return True
    return False


def _is_alias(node: ast.expr) -> bool:
    """Return whether *node* is a type, such as `Callable[[], float]` or `Login | Topic`, or a type variable."""
    match node:
        case ast.Subscript() | ast.BinOp(op=ast.BitOr()) | ast.Call(func=ast.Name(id="TypeVar")):
            return True
    return False


def _text(node: ast.expr | ast.stmt) -> str:
    """Return *node* as text, in double quotes where that is the same text."""
    text = ast.unparse(node)
    quoted = re.sub(r"'([^'\"\\]*)'", r'"\1"', text)
    try:
        return quoted if ast.dump(ast.parse(quoted)) == ast.dump(ast.parse(text)) else text
    except SyntaxError:
        return text


def _parenthesised(node: ast.expr) -> str:
    """Return *node* as text that can stand behind `not`."""
    text = _text(node)
    return f"({text})" if isinstance(node, _LOOSE) else text
