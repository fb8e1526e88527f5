"""The pages of denials: the list by cause, one cause, a grant that would allow it, and its dismissal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Count, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from authsvc.brokers.base import NAMES
from authsvc.core.access import ACCOUNT, Action, Reason
from authsvc.core.grants import ActionSet
from authsvc.models import Broker, Denial, Grant
from authsvc.operation.explain import Explanation
from authsvc.operation.reasons import SENTENCES
from authsvc.text import make_storable
from devicehub import visibility
from devicehub.dashboard import navigation, overview
from devicehub.dashboard.access import page
from devicehub.dashboard.links import device_url
from devicehub.denials import allowing, reasons
from devicehub.denials.attempts import visible
from devicehub.denials.dismissal import dismiss
from devicehub.denials.explained import changed_at, explain_denials, rule_label

PAGE = 20
BADGE_SECONDS = 300  # A number at the navigation that is older is left out.
LONGEST = 128
HOUR = timedelta(hours=1)
DAY = "24h"
PERIODS: Mapping[str, tuple[str, timedelta]] = {
    DAY: ("24 h", timedelta(days=1)),
    "7d": ("7 d", timedelta(days=7)),
    "30d": ("30 d", timedelta(days=30)),
    "all": ("Any time", timedelta.max),
}
WORDS: Mapping[str, str] = {
    Reason.NO_GRANT: "No rule allows it",
    Reason.DENY_GRANT: "A rule forbids it",
    Reason.UNKNOWN_USERNAME: "Unknown username",
    Reason.INVALID_USERNAME: "Impossible username",
    Reason.AMBIGUOUS_IDENTITY: "Username of two",
    Reason.WRONG_PASSWORD: "Wrong password",
    Reason.EXPIRED_PASSWORD: "Password expired",
    Reason.NO_PASSWORD: "No password",
    Reason.CLIENT_ID: "Wrong client id",
    Reason.AMBIGUOUS_CLIENT_ID: "Client id of two",
    Reason.DISABLED: "Disabled",
    Reason.REVOKED: "Revoked",
    Reason.UNKNOWN_CALLER: "Unknown broker",
    Reason.MALFORMED: "Unreadable question",
    Denial.REST: "Further ones, only counted",
}
ACTIONS = ("connect", *(action.value for action in Action))


@dataclass(frozen=True)
class Filter:
    """The filter and the place in the address of the list. Parameters that are not valid are ignored."""

    search: str = ""
    reason: str = ""
    action: str = ""
    device: str = ""
    broker: str = ""
    period: str = DAY
    dismissed: bool = False
    before: tuple[datetime, int] | None = None

    @property
    def is_set(self) -> bool:
        return bool(self.search or self.reason or self.action or self.device or self.broker or self.dismissed)

    def query(self, **changes: Any) -> str:
        """Return the address of this filter with *changes*, from its first page unless `before` is among them."""
        wanted = replace(self, **({"before": None} | changes))
        before = f"{wanted.before[0].isoformat()}~{wanted.before[1]}" if wanted.before else ""
        found = {
            "q": wanted.search,
            "reason": wanted.reason,
            "action": wanted.action,
            "device": wanted.device,
            "broker": wanted.broker,
            "since": "" if wanted.period == DAY else wanted.period,
            "dismissed": "1" if wanted.dismissed else "",
            "before": before,
        }
        return "?" + urlencode({name: text for name, text in found.items() if text})


@dataclass(frozen=True)
class Row:
    """One cause on a page: what the client sent, why it was refused, and what a reader may do about it."""

    denial: Denial
    who: str
    about: str
    who_url: str
    is_device: bool
    action: str
    sentence: str
    # The device that has the username as its id, and its username, for a client that sent the wrong one of the two.
    named_id: str
    named: str
    broker: str
    now: Explanation | None
    rule_label: str
    url: str
    simulator_url: str
    allow_url: str
    dismiss_url: str

    @property
    def allowed_now(self) -> bool:
        return self.now is not None and self.now.allowed


@dataclass(frozen=True)
class Listed:
    """The rows of one page, the address of the next one, and the numbers of causes in the period and its last hour.

    How many refusals an hour had is not known: the row of a cause holds their number, their first and their last time.
    """

    rows: list[Row] = field(default_factory=list)
    older: str = ""
    causes: int = 0
    of_an_hour: int = 0  # Causes with a refusal in the last hour.
    reasons: list[tuple[str, str, int, str]] = field(default_factory=list)


def parse(parameters: Mapping[str, str]) -> Filter:
    """Return the filter that the *parameters* of a GET request describe."""

    def text(name: str) -> str:
        return make_storable(parameters.get(name, "").strip(), LONGEST)

    period = text("since")
    return Filter(
        search=text("q"),
        reason=text("reason"),
        action=action if (action := text("action")) in ACTIONS else "",
        device=make_storable(parameters.get("device", "").strip(), 260),
        broker=text("broker"),
        period=period if period in PERIODS else DAY,
        dismissed=text("dismissed") == "1",
        before=_place(parameters.get("before", "")),
    )


def _place(text: str) -> tuple[datetime, int] | None:
    moment, _, pk = text.partition("~")
    if not (pk.isascii() and pk.isdigit() and len(pk) <= 18):
        return None
    try:
        found = datetime.fromisoformat(moment)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC), int(pk)
    except (ValueError, OverflowError):  # The year 1 begins earlier in the east.
        return None


def _filtered(user: Any, wanted: Filter) -> QuerySet[Denial]:
    """Return the denials that fit *wanted*, apart from its reason and its place."""
    found = visible(user)
    if wanted.period != "all":
        found = found.filter(last_at__gt=timezone.now() - PERIODS[wanted.period][1])
    if not wanted.dismissed:
        found = found.filter(dismissed_at=None)
    if wanted.search:
        columns = ("username", "principal", "client_id", "topic")
        found = found.filter(Q(*((f"{c}__icontains", wanted.search) for c in columns), _connector=Q.OR))
    if wanted.device:
        found = found.filter(principal=wanted.device)
    if wanted.broker:
        found = found.filter(broker=wanted.broker)
    if wanted.action:
        names = reasons.LOGINS if wanted.action == "connect" else {wanted.action}
        found = found.filter(action__in=names)
    return found


def listed(request: HttpRequest, wanted: Filter) -> Listed:
    """Return one page of the denials that fit *wanted*, newest first."""
    of_period = _filtered(request.user, wanted)
    lately = Count("pk", filter=Q(last_at__gt=timezone.now() - HOUR))
    by_reason = of_period.order_by().values("reason").annotate(causes=Count("pk"), lately=lately)
    counted = list(by_reason.order_by("-causes", "reason").values_list("reason", "causes", "lately"))
    chosen = [row for row in counted if wanted.reason in ("", row[0])]
    found = of_period.filter(reason=wanted.reason) if wanted.reason else of_period
    if wanted.before is not None:
        moment, pk = wanted.before
        found = found.filter(Q(last_at__lt=moment) | Q(last_at=moment, pk__lt=pk))
    rows = list(found.order_by("-last_at", "-pk")[: PAGE + 1])
    last = rows[PAGE - 1] if len(rows) > PAGE else None
    return Listed(
        rows=describe(rows[:PAGE], request),
        older=wanted.query(before=(last.last_at, last.pk)) if last is not None else "",
        causes=sum(causes for _, causes, _ in chosen),
        of_an_hour=sum(lately for *_, lately in chosen),
        reasons=[
            (WORDS.get(reason, SENTENCES.get(reason, reason)), reason, count, wanted.query(reason=reason))
            for reason, count, _ in counted
        ],
    )


def describe(denials: Iterable[Denial], request: HttpRequest) -> list[Row]:
    """Return *denials* as rows for the reader of *request*."""
    found = list(denials)
    now = explain_denials(found, request.user)
    devices = _devices({denial.principal for denial in found}, request.user)
    named = _named({d.username for d in found if d.reason == Reason.UNKNOWN_USERNAME}, request.user)
    return [_row(denial, now.get(denial.pk), devices, named, request) for denial in found]


def _devices(keys: set[str], user: Any) -> dict[str, str]:
    """Return name and site of the devices called *keys* that *user* may see, by key, with one query for each kind."""
    found: dict[str, str] = {}
    for kind in visibility.kinds_of(user):
        ids = [key.partition("/")[2] for key in keys if key.startswith(f"{kind.slug}/")]
        rows = (
            visibility.devices(kind, user).filter(device_id__in=ids).values_list("device_id", "name", "site")
        )
        for device_id, name, site in rows if ids else ():
            found[kind.key(device_id)] = ", ".join(part for part in (name, site) if part)
    return found


def _named(usernames: set[str], user: Any) -> dict[str, tuple[str, str]]:
    """Return key and username of the devices whose id is one of *usernames*, by that id."""
    found: dict[str, tuple[str, str]] = {}
    for kind in visibility.kinds_of(user) if usernames else ():
        rows = visibility.devices(kind, user).filter(device_id__in=usernames)
        for device_id, username in rows.values_list("device_id", "mqtt_username"):
            found[device_id] = kind.key(device_id), username or ""
    return found


def _row(
    denial: Denial,
    now: Explanation | None,
    devices: Mapping[str, str],
    named: Mapping[str, tuple[str, str]],
    request: HttpRequest,
) -> Row:
    user = request.user
    is_device, is_account = denial.principal in devices, denial.principal.startswith(f"{ACCOUNT}/")
    key, username = named.get(denial.username, ("", "")) if not denial.principal else ("", "")
    who = denial.principal or key
    about = "a service account" if is_account else devices.get(denial.principal, "unknown")
    return Row(
        denial=denial,
        who=_who(denial),
        about="" if denial.is_rest else about,
        who_url=device_url(who, request, [who]) if is_device or key else "",
        is_device=is_device,
        action=reasons.action(denial),
        sentence=reasons.sentence(denial),
        named_id=key.partition("/")[2] if username else "",
        named=username,
        broker=", ".join(part for part in (denial.broker, NAMES.get(denial.dialect, denial.dialect)) if part),
        now=now,
        rule_label=rule_label(now) if now is not None else "",
        url=reverse("devicehub:denial", args=[denial.pk]),
        simulator_url=_simulator_url(denial, user),
        allow_url=reverse("devicehub:allow_denial", args=[denial.pk])
        if allowing.may_allow(user) and not allowing.problem(denial) and not (now and now.allowed)
        else "",
        dismiss_url=reverse("devicehub:dismiss_denial", args=[denial.pk])
        if denial.dismissed_at is None and visibility.may(user, visibility.CHANGE, Denial)
        else "",
    )


def _who(denial: Denial) -> str:
    if denial.principal:
        return denial.principal.partition("/")[2]
    return denial.username or ("Unknown names" if denial.is_rest else "An unknown client")


def _simulator_url(denial: Denial, user: Any) -> str:
    if denial.is_rest or not denial.username or not visibility.may(user, visibility.VIEW, Grant):
        return ""
    question = {
        "who": denial.principal or denial.username,
        "action": reasons.action(denial),
        "topic": denial.topic,
        "client_id": denial.client_id,
        "broker": denial.dialect,
    }
    if question["action"] not in ACTIONS:
        return ""
    given = {name: text for name, text in question.items() if text}
    return f"{reverse('devicehub:simulator')}?{urlencode(given)}"


@page
@require_safe
def show_list(request: HttpRequest) -> HttpResponse:
    """Return the list of causes, newest first."""
    wanted = parse(request.GET)
    found = listed(request, wanted)
    overview.counts(request.user, max_age=60)  # For the number at the navigation.
    return render(
        request,
        "devicehub/denials.html",
        {
            "filter": wanted,
            "listed": found,
            "period": PERIODS[wanted.period][0],
            "periods": [(name, words) for name, (words, _) in PERIODS.items()],
            "reasons": sorted((words, reason) for reason, words in WORDS.items()),
            "actions": ACTIONS,
            "brokers": _brokers(request.user),
            "device": wanted.device.partition("/")[2],
            "newest": wanted.query() if wanted.before else "",
            "all_devices": wanted.query(device=""),
        },
    )


def _brokers(user: Any) -> list[str]:
    """Return the names of brokers for the filter, to a reader who may see brokers and is not limited to sites."""
    if visibility.is_limited(user) or not visibility.may(user, visibility.VIEW, Broker):
        return []
    return list(Broker.objects.order_by("name").values_list("name", flat=True)[:100])


def _one(request: HttpRequest, number: int) -> Denial:
    """Return the denial *number* if the reader of *request* may see it. Raise Http404."""
    found = visible(request.user).filter(pk=number).first()
    if found is None:
        raise Http404
    return found


@page
@require_safe
def show_one(request: HttpRequest, number: int) -> HttpResponse:
    """Return the page of one cause."""
    (row,) = describe([_one(request, number)], request)
    context = {
        "row": row,
        "problem": _problem(row, request.user),
        "changed_at": _changed_before(row.denial, request.user),
    }
    return render(request, "devicehub/denial.html", context)


def last_wrong_password(key: str, user: Any) -> Denial | None:
    """Return the latest denial of a DAY because the password of *key* was wrong, if *user* may see it."""
    if not key or not visibility.may(user, visibility.VIEW, Denial):
        return None
    since = timezone.now() - PERIODS[DAY][1]
    found = visible(user).filter(principal=key, reason=Reason.WRONG_PASSWORD, last_at__gt=since)
    return found.order_by("-last_at").first()


def _changed_before(denial: Denial, user: Any) -> datetime | None:
    """Return the change of credentials after which *denial* found the password wrong; None without one."""
    if denial.reason != Reason.WRONG_PASSWORD:
        return None
    changed = changed_at(denial.principal, user)
    return changed if changed is not None and changed <= denial.last_at else None


def _problem(row: Row, user: Any) -> str:
    """Return why a reader who may add grants is not offered one."""
    if (
        not allowing.may_allow(user)
        or row.allow_url
        or row.allowed_now
        or row.denial.reason != Reason.NO_GRANT
    ):
        return ""
    return allowing.problem(row.denial)


@page
@require_POST
def dismiss_one(request: HttpRequest, number: int) -> HttpResponse:
    """Hide a cause until it happens again, and return to the list."""
    denial = _one(request, number)
    if not visibility.may(request.user, visibility.CHANGE, Denial):
        raise PermissionDenied("You may not dismiss denials.")
    dismiss([denial])
    messages.info(request, "Dismissed. It comes back if it happens again.")
    return HttpResponseRedirect(reverse("devicehub:denials"))


@page
@require_http_methods(["GET", "HEAD", "POST"])
def allow_one(request: HttpRequest, number: int) -> HttpResponse:
    """Return the grant that would allow a cause, to be chosen and confirmed; a POST creates it."""
    denial = _one(request, number)
    visibility.check_unlimited(request.user)
    if not visibility.may(request.user, visibility.ADD, Grant):
        raise PermissionDenied("You may not add grants.")
    try:
        proposal = allowing.propose(denial)
    except allowing.NotAllowed as error:
        raise PermissionDenied(str(error)) from error
    chosen, actions, refused = allowing.THIS, list(proposal.actions), ""
    if request.method == "POST":
        chosen, actions = request.POST.get("for", ""), request.POST.getlist("action")
        try:
            return _allowed(request, denial, chosen, actions)
        except (ValidationError, allowing.NotAllowed) as refusal:
            refused = _said(refusal)
    (row,) = describe([denial], request)
    context = {
        "row": row,
        "proposal": proposal,
        "chosen": chosen,
        "chosen_actions": actions,
        "actions": list(Action),
        "error": refused,
        "note": request.POST.get("note", "")[:255],
    }
    return render(request, "devicehub/allow.html", context)


def _allowed(request: HttpRequest, denial: Denial, chosen: str, actions: list[str]) -> HttpResponse:
    note = make_storable(request.POST.get("note", "").strip(), 255)
    grant = allowing.allow(denial, chosen, actions, note)
    slug, _, name = denial.principal.partition("/")
    subject = name if chosen == allowing.THIS else f"every {slug}"
    allowed = f"{subject} may {ActionSet(grant.actions).sentence} {grant.filter}"
    messages.success(request, f"Grant {grant.pk} is in force: {allowed}.")
    return HttpResponseRedirect(reverse("devicehub:denial", args=[denial.pk]))


def _said(refusal: Exception) -> str:
    return " ".join(refusal.messages) if isinstance(refusal, ValidationError) else str(refusal)


def _badge(request: HttpRequest) -> navigation.Badge | None:
    """Return the number of causes of a day that was counted last for the limits of this reader."""
    counts = overview.counted(request.user, BADGE_SECONDS)
    return None if counts is None else navigation.Badge(counts.denied, "bad")


def _may_see(request: HttpRequest) -> bool:
    return visibility.may(getattr(request, "user", None), visibility.VIEW, Denial)


navigation.register(
    "Denials",
    "devicehub:denials",
    group=navigation.ACCESS,
    icon="denials",
    order=10,
    visible=_may_see,
    badge=_badge,
)
