"""The endpoints that are registered at a Leshan server, and what follows from each event. No clock is read here.

A registration counts until its end or another one of its endpoint is reported. An endpoint that a new list lacks is
unknown, not offline: registrations live in the memory of the server, so after its restart the list is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import singledispatchmethod

import structlog

from devicehub.backoff import Backoff
from devicehub.lwm2m.leshan import reports
from devicehub.lwm2m.leshan.intake import Arrived, ListBegins, Listed, ListEnds, Replied
from devicehub.lwm2m.leshan.plans import Action, Instances, Step, Wish, plan
from devicehub.lwm2m.leshan.reports import Report
from devicehub.lwm2m.leshan.server import Answer, Result
from devicehub.lwm2m.leshan.shapes import (
    Deregistered,
    Presence,
    Registered,
    Registration,
    Updated,
    Values,
)

log = structlog.get_logger(__name__)

MOST_ENDPOINTS = 100_000  # Endpoints beyond these are stored and get no requests.
# An endpoint that returns ends its old registration and begins a new one at the same instant: wait for the new one.
RETURN = timedelta(seconds=1)
RETRY = Backoff((10, 30, 120))  # Seconds until an endpoint that did not answer gets its requests again.
MOST_ATTEMPTS = 4  # Then it gets them again at its next update.


@dataclass(slots=True)
class Known:
    """A registered endpoint. *todo* are the steps that it has not answered."""

    id: str
    last_update: int
    links: int  # A hash of the links, to notice other ones.
    is_asleep: bool
    list_number: int
    steps: tuple[Step, ...] = ()
    todo: list[Step] = field(default_factory=list)
    is_busy: bool = False
    woke: bool = False  # Since its requests were sent.
    failures: int = 0
    overtaken: set[str] = field(default_factory=set)  # Paths of notifications since its requests were sent.


@dataclass(slots=True)
class Ended:
    """A registration that ended, received *at* a time, and held back for a moment."""

    registration: Registration
    at: datetime
    held_since: datetime | None = None


class Roll:
    """The known endpoints. *request* is called with an endpoint, its registration id and the steps to take.

    handle() returns the reports that follow from one event, and due() those that follow from the time alone.
    """

    def __init__(self, wishes: Sequence[Wish], request: Callable[[str, str, Sequence[Step]], None]) -> None:
        self._wishes = wishes
        self._request = request
        self._known: dict[str, Known] = {}
        self._list_number = 0
        self._ended: dict[str, Ended] = {}  # Deregistrations that may be returns.
        self._retries: dict[str, datetime] = {}
        self._is_full = False

    def __len__(self) -> int:
        return len(self._known)

    def may_be_requested(self, endpoint: str, registration_id: str) -> bool:
        """Return whether *endpoint* is registered so and awake. Other threads call this."""
        known = self._known.get(endpoint)
        return known is not None and known.id == registration_id and not known.is_asleep

    def handle(self, arrived: Arrived) -> list[Report]:
        """Return the reports that follow from one event, list entry or answer, in order."""
        return list(self._handle(arrived.content, arrived.at))

    def due(self, now: datetime, *, is_end: bool = False) -> list[Report]:
        """Return the ends of registrations that no return followed, and repeat requests. At *is_end* do not wait."""
        found = []
        for endpoint, ended in list(self._ended.items()):
            # From the first call on, not from the receipt: the new registration may wait behind a slow database.
            ended.held_since = ended.held_since or now
            if is_end or ended.held_since + RETURN <= now:
                del self._ended[endpoint]
                found.append(_deregistered(ended))
        for endpoint, at in list(self._retries.items()):
            if at <= now:
                del self._retries[endpoint]
                self._request_if_useful(endpoint)
        return found

    @singledispatchmethod
    def _handle(self, content: object, at: datetime) -> Iterator[Report]:
        raise TypeError(type(content).__name__)

    @_handle.register
    def _(self, content: Registered, at: datetime) -> Iterator[Report]:
        known = self._known.get(content.registration.endpoint)
        if known is None or known.id != content.registration.id:  # Else the list named it already.
            yield from self._begin(content.registration, at)

    @_handle.register
    def _(self, content: Deregistered, at: datetime) -> Iterator[Report]:
        """Hold the end back for a moment; one of an earlier registration says nothing."""
        ended = content.registration
        known = self._known.get(ended.endpoint)
        if known is not None and known.id != ended.id:
            return
        self._known.pop(ended.endpoint, None)
        self._retries.pop(ended.endpoint, None)
        held = self._ended.pop(ended.endpoint, None)
        if held is not None and held.registration.id != ended.id:
            yield _deregistered(held)
        self._ended[ended.endpoint] = Ended(ended, at)

    @_handle.register
    def _(self, content: Updated, at: datetime) -> Iterator[Report]:
        registration = content.registration
        known = self._known.get(registration.endpoint)
        if known is None or known.id != registration.id:
            yield from self._begin(registration, at)  # Its registration was missed.
            return
        yield self._updated(known, registration, content.changed, at)
        known.failures = 0
        self._request_if_useful(registration.endpoint)

    @_handle.register
    def _(self, content: Presence, at: datetime) -> Iterator[Report]:
        known = self._known.get(content.endpoint)
        if known is None:
            return  # The registration that follows says it, too.
        known.is_asleep, known.woke = not content.is_awake, content.is_awake
        yield reports.status(content.endpoint, {"awake": content.is_awake}, at)
        if content.is_awake:
            known.failures = 0
            self._request_if_useful(content.endpoint)

    @_handle.register
    def _(self, content: Values, at: datetime) -> Iterator[Report]:
        known = self._known.get(content.endpoint)
        if known is not None and known.is_busy:
            known.overtaken.update(content.nodes)
        if content.nodes:
            yield reports.values(content.endpoint, content.kind, content.nodes, at)

    @_handle.register
    def _(self, content: ListBegins, at: datetime) -> Iterator[Report]:
        self._list_number += 1
        yield from ()

    @_handle.register
    def _(self, content: Listed, at: datetime) -> Iterator[Report]:
        """Report what changed while no event arrived, and send requests again: notifications of that time are lost."""
        registration = content.registration
        known = self._known.get(registration.endpoint)
        if known is None or known.id != registration.id:
            yield from self._begin(registration, at)
            return
        known.list_number = self._list_number
        has_other_links = known.links != hash(registration.links)
        if has_other_links or known.last_update != registration.last_update:
            changed = frozenset({"links"}) if has_other_links else frozenset()
            yield self._updated(known, registration, changed, at)
        if known.is_asleep != registration.is_sleeping:
            known.is_asleep = registration.is_sleeping
            yield reports.status(registration.endpoint, {"awake": not known.is_asleep}, at)
        known.todo, known.failures = list(known.steps), 0
        self._request_if_useful(registration.endpoint)

    @_handle.register
    def _(self, content: ListEnds, at: datetime) -> Iterator[Report]:
        missing = [name for name, known in self._known.items() if known.list_number != self._list_number]
        for name in missing:
            del self._known[name]
            self._retries.pop(name, None)
        log.info("leshan.listed", registered=len(self._known), no_longer_listed=len(missing))
        yield from ()

    @_handle.register
    def _(self, content: Replied, at: datetime) -> Iterator[Report]:
        known = self._known.get(content.endpoint)
        if content.step is not None and content.answer is not None:
            yield from self._answered(known, content.endpoint, content.step, content.answer, at)
        if known is None or known.id != content.registration_id:
            return
        if content.step is not None:
            self._settle(known, content.step, content.answer)
        if content.is_last:
            self._finished(content.endpoint, known, content, at)

    def _begin(self, registration: Registration, at: datetime) -> Iterator[Report]:
        """Report a registration, and send requests to its endpoint."""
        self._ended.pop(registration.endpoint, None)
        self._retries.pop(registration.endpoint, None)
        yield reports.status(registration.endpoint, {"registration": registration.members()}, at)
        if registration.is_sleeping:
            yield reports.status(registration.endpoint, {"awake": False}, at)
        if len(self._known) >= MOST_ENDPOINTS and registration.endpoint not in self._known:
            if not self._is_full:
                log.error(
                    "leshan.too_many_endpoints", most=MOST_ENDPOINTS, hint="further ones are not observed"
                )
            self._is_full = True
            return
        steps = self._steps(registration.instances, registration.version)
        self._known[registration.endpoint] = Known(
            id=registration.id,
            last_update=registration.last_update,
            links=hash(registration.links),
            is_asleep=registration.is_sleeping,
            list_number=self._list_number,
            steps=steps,
            todo=list(steps),
        )
        self._request_if_useful(registration.endpoint)

    def _steps(self, instances: Instances, version: str) -> tuple[Step, ...]:
        return tuple(plan(self._wishes, instances, version))

    def _updated(
        self, known: Known, registration: Registration, changed: frozenset[str], at: datetime
    ) -> Report:
        """Return the report of an update; new paths are requested next."""
        known.last_update = registration.last_update
        if "links" in changed or "version" in changed:
            steps = self._steps(registration.instances, registration.version)
            known.todo += [step for step in steps if step not in known.steps]
            known.steps, known.links = steps, hash(registration.links)
        members = registration.members()
        kept = {name: members[name] for name in members if name == "id" or name in changed}
        return reports.status(registration.endpoint, {"update": kept}, at)

    def _request_if_useful(self, endpoint: str) -> None:
        known = self._known.get(endpoint)
        if known is None or known.is_asleep or known.is_busy or not known.todo:
            return
        self._retries.pop(endpoint, None)
        known.is_busy, known.woke, known.overtaken = True, False, set()
        self._request(endpoint, known.id, tuple(known.todo))

    def _answered(
        self, known: Known | None, endpoint: str, step: Step, answer: Answer, at: datetime
    ) -> Iterator[Report]:
        """Report the values of an answer, but none that a notification has overtaken."""
        overtaken = known.overtaken if known is not None else set()
        nodes = {
            path: node for path, node in answer.nodes.items() if node is not None and path not in overtaken
        }
        if nodes:
            event = "notification" if step.action is Action.OBSERVE else "read"
            yield reports.values(endpoint, event, nodes, at)

    def _settle(self, known: Known, step: Step, answer: Answer | None) -> None:
        """Remove *step* from the steps to take if it has its answer. A refused composite one becomes single ones."""
        if answer is None or answer.result not in (Result.VALUES, Result.REFUSED) or step not in known.todo:
            return
        known.todo.remove(step)
        if answer.result is Result.REFUSED:
            log.info("leshan.refused", step=step.action, paths=step.paths, detail=answer.detail)
            if len(step.paths) > 1:
                known.todo[:0] = step.singly()
                known.steps = (*(one for one in known.steps if one != step), *step.singly())

    def _finished(self, endpoint: str, known: Known, last: Replied, at: datetime) -> None:
        """Decide when to request the steps that the endpoint has not answered."""
        known.is_busy, known.overtaken = False, set()
        result = None if last.answer is None else last.answer.result
        if result is Result.ASLEEP and not known.woke:
            known.is_asleep = True
        elif not known.todo or result is Result.UNREGISTERED:
            pass  # An event about its registration will come.
        elif last.step is not None and result in (Result.VALUES, Result.REFUSED):
            self._request_if_useful(endpoint)  # There are new steps since its requests were sent.
        else:
            known.failures += 1
            if known.failures < MOST_ATTEMPTS:
                self._retries[endpoint] = at + timedelta(seconds=RETRY.after(known.failures))


def _deregistered(ended: Ended) -> Report:
    registration = ended.registration
    content = {"deregistration": {"id": registration.id, "at": registration.at}}
    return reports.status(registration.endpoint, content, ended.at)
