"""The requests to an endpoint after it registered, by its objects and the wishes of an operator. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

from devicehub.messages.lwm2m import paths

ANY = "*"
COMPOSITE = "+"
MOST_STEPS = 64  # Requests to one endpoint after a registration.
# The firmware's version, and the state and result of its update: a client that restarts does not notify of them.
READ = ("/3/0/3", "/5/0/3", "/5/0/5")

Instances = Mapping[int, tuple[int, ...]]


class Action(StrEnum):
    """A request to an endpoint."""

    OBSERVE = "observe"
    READ = "read"


class Step(NamedTuple):
    """One request: an observation of one path, a composite one of several, or a read of one path."""

    action: Action
    paths: tuple[str, ...]

    def singly(self) -> list[Step]:
        """Return an observation for each path, for an endpoint or a server that refuses composite ones."""
        return [Step(self.action, (path,)) for path in self.paths]


class Wish(NamedTuple):
    """Paths to observe: one, or several in one composite observation. An instance may be ANY."""

    paths: tuple[tuple[str, ...], ...]


def wish(text: str) -> Wish:
    """Return the wish that *text* names. Raise ValueError.

    >>> wish("3303/*/5700+/3304/0")
    Wish(paths=(('3303', '*', '5700'), ('3304', '0')))
    """
    found = []
    for part in text.split(COMPOSITE):
        levels = tuple(part.strip().strip("/").split("/"))
        ids = (*levels[:1], "0", *levels[2:]) if levels[1:2] == (ANY,) else levels
        try:
            is_path = paths.parse("/" + "/".join(ids)) != ()
        except ValueError:
            is_path = False
        if not is_path:
            raise ValueError(
                f"{text[:40]!r} is not a path such as 3303/0/5700, or 3303/*/5700 for all instances"
            )
        found.append(levels)
    return Wish(tuple(found))


def plan(wishes: Iterable[Wish], instances: Instances, version: str) -> list[Step]:
    """Return the steps for an endpoint with these *instances*, at most MOST_STEPS."""
    steps: dict[Step, None] = {}
    for one in wishes:
        found = tuple(dict.fromkeys(path for levels in one.paths for path in _present(levels, instances)))
        if len(one.paths) > 1 and len(found) > 1 and version != "1.0":
            steps[Step(Action.OBSERVE, found)] = None
        else:
            steps.update(dict.fromkeys(Step(Action.OBSERVE, (path,)) for path in found))
    reads = [Step(Action.READ, (path,)) for path in READ if _present(tuple(path[1:].split("/")), instances)]
    return [*list(steps)[: MOST_STEPS - len(reads)], *reads]


def _present(levels: tuple[str, ...], instances: Instances) -> list[str]:
    """Return the paths that *levels* name and the endpoint has, as far as its registration tells."""
    object_id, *rest = levels
    known = instances.get(int(object_id))
    if known is None:
        return []
    if not rest:
        return [f"/{object_id}"]
    ids = [str(one) for one in known] if rest[0] == ANY else [rest[0]] if int(rest[0]) in known else []
    return ["/" + "/".join((object_id, one, *rest[1:])) for one in ids]
