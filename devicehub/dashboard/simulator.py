"""The access simulator: a decision as for a broker, every rule, and the answer over the wire. It changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import yaml
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import NoReverseMatch, reverse
from django.views.decorators.http import require_safe

from authsvc.brokers.base import NAMES
from authsvc.core import topics as mqtt
from authsvc.core.access import ACCOUNT, Action, Reason
from authsvc.models import Grant
from authsvc.operation.explain import Explanation, NotOneIdentity
from authsvc.operation.tried import Outcome
from authsvc.operation.wire import CONNECT, WireAnswer
from devicehub import visibility
from devicehub.dashboard import denials, navigation
from devicehub.dashboard.access import page
from devicehub.dashboard.links import device_url
from devicehub.denials import allowing, explained
from devicehub.denials.explained import ACTIONS, LONGEST_NAME

LONGEST_BODY = 2_000  # Characters of an answer over the wire.
NOT_FOUND = "No device or account that you may see has this name."


@dataclass(frozen=True)
class Question:
    """The question in the address of the page."""

    who: str = ""
    action: str = Action.PUBLISH.value
    topic: str = ""
    client_id: str = ""
    broker: str = ""

    @property
    def problem(self) -> str:
        """A sentence that says what is missing; empty if it can be answered."""
        if self.action != CONNECT and not self.topic:
            return "Write the topic that the client uses."
        return ""


def parse(parameters: Mapping[str, str]) -> Question:
    """Return the question that the *parameters* of a GET request describe."""
    action, broker = parameters.get("action", ""), parameters.get("broker", "")
    return Question(
        who=parameters.get("who", "").strip()[:LONGEST_NAME],
        action=action if action in ACTIONS else Action.PUBLISH.value,
        topic=parameters.get("topic", "") if action != CONNECT else "",
        client_id=parameters.get("client_id", "").strip()[:LONGEST_NAME],
        broker=broker if broker in NAMES else "",
    )


@page
@require_safe
def show(request: HttpRequest) -> HttpResponse:
    """Return the form, and the answer to the question in the address."""
    if not visibility.may(request.user, visibility.VIEW, Grant):
        raise PermissionDenied("You may not see the rules by which a question is decided.")
    question = parse(request.GET)
    found, error = None, ""
    if question.who:
        error = question.problem
        if not error:
            found, error = _answer(request.user, question)
    context = {
        "question": question,
        "error": error,
        "actions": ACTIONS,
        "brokers": NAMES.items(),
        **(_context(request, question, found) if found is not None else {}),
    }
    return render(request, "devicehub/simulator.html", context)


def _answer(user: Any, question: Question) -> tuple[Explanation | None, str]:
    """Return the decision, or a sentence why there is none."""
    try:
        found = explained.explain_for(user, question.who, question.action, question.topic, question.client_id)
    except NotOneIdentity as error:
        return None, f"{error}."
    return found, "" if found is not None else NOT_FOUND


def _context(request: HttpRequest, question: Question, found: Explanation) -> dict[str, Any]:
    answers = explained.wire_of(found)
    owner = explained.owner_of(found.topic, found.principal)
    is_account = found.principal.startswith(f"{ACCOUNT}/")
    is_login = found.action == CONNECT and found.allowed
    wrong = denials.last_wrong_password(found.principal, request.user) if is_login else None
    return {
        "found": found,
        "sentence": explained.sentence(found),
        "owner": owner,
        "wrong_password": wrong,
        "changed_at": explained.changed_at(found.principal, request.user) if wrong else None,
        "wire": [_shown(answer) for answer in answers if question.broker in ("", answer.dialect)],
        "who_url": "" if is_account or not found.principal else device_url(found.principal, request),
        "grant_url": _grant_url(request, found),
        "test": _test(question, found),
        "decides": Outcome.DECIDES,
        "asked_as": question.client_id or next(iter(found.client_ids or ()), found.username),
    }


def _shown(answer: WireAnswer) -> dict[str, Any]:
    is_long = len(answer.body) > LONGEST_BODY
    return vars(answer) | {"body": f"{answer.body[:LONGEST_BODY]}…" if is_long else answer.body}


def _grant_url(request: HttpRequest, found: Explanation) -> str:
    """Return the address of the form of a grant, filled in; "" for a reader who may not add one."""
    offered = found.reason == Reason.NO_GRANT and allowing.may_allow(request.user)
    if not offered or not navigation.is_staff(request) or "{" in found.topic or "}" in found.topic:
        return ""
    wanted = mqtt.inner_filter(found.topic) if found.action == Action.SUBSCRIBE else found.topic
    initial = {"subject": f"key:{found.principal}", "actions": found.action, "filter": wanted or ""}
    try:
        return f"{reverse('admin:authsvc_grant_add')}?{urlencode(initial)}"
    except NoReverseMatch:
        return ""


def _test(question: Question, found: Explanation) -> str:
    """Return the question as a policy test."""
    test = {
        "who": question.who,
        "action": found.action,
        "topic": found.topic,
        "client_id": question.client_id,
    }
    given = {name: text for name, text in test.items() if text}
    expected = {"expect": "allow" if found.allowed else "deny"}
    return str(yaml.safe_dump([given | expected], sort_keys=False, allow_unicode=True, width=1_000))


def _may_see(request: HttpRequest) -> bool:
    return visibility.may(getattr(request, "user", None), visibility.VIEW, Grant)


navigation.register(
    "Simulator",
    "devicehub:simulator",
    group=navigation.ACCESS,
    icon="simulator",
    order=20,
    visible=_may_see,
)
