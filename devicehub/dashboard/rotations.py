"""The pages of rotations: the list, one rotation with its progress, and the acts that end it.

The views take the addresses of their half of the site, so the admin shows the same pages.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Count, Exists, OuterRef, QuerySet
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseRedirect,
    JsonResponse,
)
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from authsvc import audit
from authsvc.credentials import UNTIL_USED
from authsvc.text import in_utc
from devicehub import nonces, provisioning, visibility
from devicehub.bulk import rotations
from devicehub.bulk.rotations import Overtaken, Progress
from devicehub.credentials import answers
from devicehub.dashboard import confirmation, credentials_file, navigation
from devicehub.dashboard.access import page
from devicehub.dashboard.bulk import devices_in_words
from devicehub.dashboard.bulk_forms import EndForm
from devicehub.dashboard.confirmation import Confirmation
from devicehub.dashboard.links import device_url
from devicehub.models import Rotation, RotationMember
from devicehub.nonces import FormExpired, FormUsed

ROWS = 25  # Rotations on one page of the list.
MEMBERS = 100  # Devices on one page of a rotation.
NOT_NOTED = "A login of the last seconds may not count yet."
KEYS_OF_ROLL_BACK = (
    "The old API key becomes valid again too, unless the key was changed since: the new key ends even if the device "
    "uses it. "
)
STATES = {
    "old": ("Still on the old password", "silent", "warn"),
    "without_old": ("No old password", "silent", "warn"),
    "never": ("Never seen", "never", "off"),
    "confirmed": ("Confirmed", "done", "good"),
    "waiting": ("Not rotated yet", "wait", "off"),
    "changed": ("Changed since", "part", "off"),
    "finished": ("Ended by Finish now", "disabled", "off"),
    "rolled_back": ("Rolled back", "disabled", "off"),
}


ENDS = ("finished", "rolled_back")  # The states that an act on the rotation ends with.


@dataclass(frozen=True)
class Links:
    """The addresses of the pages of rotations, in one half of the site."""

    all: str
    one: Callable[[int], str]
    progress: Callable[[int], str]


def _links() -> Links:
    return Links(
        all=reverse("devicehub:rotations"),
        one=lambda number: reverse("devicehub:rotation", args=[number]),
        progress=lambda number: reverse("devicehub:rotation_progress", args=[number]),
    )


@page
@require_safe
def show_rotations(request: HttpRequest) -> HttpResponse:
    """Return the list of rotations."""
    return listing(request, _links())


@page
@require_http_methods(["GET", "HEAD", "POST"])
def show_rotation(request: HttpRequest, number: int) -> HttpResponseBase:
    """Return the progress of one rotation; a POST ends it, or writes another file."""
    return one(request, number, _links())


@page
@require_safe
def show_progress(request: HttpRequest, number: int) -> HttpResponse:
    """Return in JSON how far the file of a rotation is."""
    return progress(request, number)


def listing(request: HttpRequest, links: Links) -> HttpResponse:
    """Return the list of the rotations that hold a device of the user, the newest first."""
    before = request.GET.get("before", "")
    rows = visible_rotations(request.user)
    if before.isdecimal():
        rows = rows.filter(pk__lt=int(before[:18]))
    found = list(rows.order_by("-pk")[: ROWS + 1])
    members = visibility.rows(RotationMember.objects.filter(rotation__in=found[:ROWS]), request.user)
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    for number, end, count in members.order_by().values_list("rotation", "end").annotate(Count("pk")):
        counts[number][end] = count
    still_open = rotations.with_state(members.filter(rotation__ended_at=None)).filter(state="confirmed")
    confirmed = dict(still_open.order_by().values_list("rotation").annotate(Count("pk")))
    context = {
        "rotations": [
            (
                rotation,
                links.one(rotation.pk),
                counts[rotation.pk].total(),
                None if rotation.ended_at else confirmed.get(rotation.pk, 0),
                _state(rotation, counts[rotation.pk]),
            )
            for rotation in found[:ROWS]
        ],
        "next": f"?before={found[ROWS - 1].pk}" if len(found) > ROWS else "",
        "first": "?" if before else "",
    }
    return render(request, "devicehub/rotations.html", context)


def one(request: HttpRequest, number: int, links: Links) -> HttpResponseBase:
    """Return the page of one rotation; a POST is one of ACTS. Raise Http404 for one without a device of the user."""
    rotation = _find(number, request.user)
    if request.method == "POST":
        return _act(request, rotation, links)
    members = _members(rotation, request.user)
    numbers = rotations.progress(members)
    ends = Counter(dict(members.exclude(end="").order_by().values_list("end").annotate(Count("pk"))))
    counts = {name: ends[name] if name in ENDS else getattr(numbers, name) for name in STATES}
    shown = request.GET.get("state", "")
    if shown not in STATES:
        shown = next((name for name in STATES if counts[name]), "old")
    after = request.GET.get("after", "")
    rows = rotations.with_state(members).filter(**{"end" if shown in ENDS else "state": shown}).order_by("pk")
    if after.isdecimal():
        rows = rows.filter(pk__gt=int(after[:18]))
    found = list(rows[: MEMBERS + 1])
    existing = provisioning.existing({member.device_key for member in found[:MEMBERS]})
    may_act = bool(_members(rotation, request.user, visibility.CHANGE).exists())
    context = {
        "rotation": rotation,
        "links": links,
        "numbers": numbers,
        "ends": ends,
        "state": _state(rotation, ends),
        "is_import": rotation.origin == Rotation.Origin.IMPORT,
        "until": _until(rotation),
        "tabs": [
            (name, word, counts[name], name == shown)
            for name, (word, _, _) in STATES.items()
            if counts[name] or name == shown
        ],
        "shares": _shares(numbers),
        "shown": shown,
        "word": STATES[shown][0],
        "members": [
            (member, device_url(member.device_key, request, existing), _has_used_new(member))
            for member in found[:MEMBERS]
        ],
        "next": f"?state={shown}&after={found[MEMBERS - 1].pk}" if len(found) > MEMBERS else "",
        "first": f"?state={shown}" if after else "",
        "acts": [act for act in ACTS.values() if act.fits(rotation, numbers)] if may_act else [],
        "progress_url": links.progress(rotation.pk) if rotations.is_running(rotation) else "",
    }
    return render(request, "devicehub/rotation.html", context)


def progress(request: HttpRequest, number: int) -> HttpResponse:
    """Return how many devices of a rotation have new credentials, for the page that waits."""
    rotation = _find(number, request.user)
    members = _members(rotation, request.user)
    total, waiting = members.count(), members.filter(changed_at=None, end="").count()
    text = f"{total - waiting:,} of {total:,} devices have new credentials."
    over = not rotations.is_running(rotation)
    title = credentials_file.title(over, rotation.written_at is not None)
    found = {"done": total - waiting, "total": total, "title": title, "text": text, "over": over}
    return answers.no_store(JsonResponse(found))


def visible_rotations(user: Any) -> QuerySet[Rotation]:
    """Return the rotations that hold a device that *user* may see."""
    if visibility.sees_everything(user):
        return Rotation.objects.all()
    members = visibility.rows(RotationMember.objects.filter(rotation=OuterRef("pk")), user)
    return Rotation.objects.filter(Exists(members))


def _find(number: int, user: Any) -> Rotation:
    rotation = visible_rotations(user).filter(pk=number).first()
    if rotation is None:
        raise Http404
    return rotation


def _members(rotation: Rotation, user: Any, action: str = visibility.VIEW) -> QuerySet[Any]:
    return visibility.rows(rotation.members.all(), user, action=action)


def _has_used_new(member: Any) -> bool:
    """Return whether *member* logged in with the password of its rotation, also where its overlap was ended since."""
    return member.is_used or (bool(member.password_mark) and member.used_mark == member.password_mark)


def _state(rotation: Rotation, ends: Counter[str]) -> tuple[str, str]:
    """Return the state of *rotation*, with *ends* of its devices, and its word, for the tag `pill`."""
    if rotation.ended_at is not None:
        words = [STATES[name][0] for name in ENDS if ends[name]]
        return "done", words[0] if len(words) == 1 else "Ended"
    if rotations.is_running(rotation):
        return "provisioning", "Writing the file"
    if rotation.written_at is None:
        return "part", "Broke off"
    return "wait", "Open"


def _until(rotation: Rotation) -> str:
    """Return in words when the old passwords end."""
    if rotation.origin == Rotation.Origin.IMPORT:
        return "The devices are new, so there are no old passwords."
    if rotation.until is None:
        return "The old passwords ended at once."
    if rotation.until == UNTIL_USED:
        return "Each old password ends when the new one is first used."
    ends = "ended" if rotation.until <= timezone.now() else "end"
    return f"The old passwords {ends} at {in_utc(rotation.until)}, or earlier if they expire."


def _shares(numbers: Progress) -> list[tuple[str, float, float]]:
    """Return the parts of the bar: tone, beginning and width, of 100."""
    parts, at = [], 0.0
    tones = {"confirmed": "good", "old": "warn", "without_old": "warn", "never": "off", "waiting": "none"}
    for name, tone in tones.items():
        width = 100 * getattr(numbers, name) / max(numbers.total, 1)
        parts.append((tone, round(at, 3), round(width, 3)))
        at += width
    return [part for part in parts if part[2]]


@dataclass(frozen=True)
class Act:
    """An act on a rotation: its words, the number of devices that it concerns, and what it does."""

    name: str
    label: str
    verb: str
    question: str
    text: Callable[[Rotation, Progress], str]
    count: Callable[[Progress], int]
    run: Callable[[HttpRequest, Rotation, Any], str | HttpResponseBase]
    needs_old: bool = (
        True  # It concerns old passwords, which new devices and those changed at once do not have.
    )
    ends: bool = True
    may_be_empty: bool = False  # It ends the rotation also if none of its devices is left for the act.

    def fits(self, rotation: Rotation, numbers: Progress) -> bool:
        """Return whether the act has anything to do now."""
        if rotation.ended_at is not None or rotations.is_running(rotation):
            return False
        has_devices = numbers.confirmed + numbers.unconfirmed if self.may_be_empty else self.count(numbers)
        if not has_devices:
            return False
        has_old = rotation.origin == Rotation.Origin.ROTATION and rotation.until is not None
        return has_old or not self.needs_old


def _act(request: HttpRequest, rotation: Rotation, links: Links) -> HttpResponseBase:
    act = ACTS.get(request.POST.get("do", ""))
    members = _members(rotation, request.user, visibility.CHANGE)
    if act is None:
        raise Http404
    if not members.exists():
        raise PermissionDenied("You may not change these devices.")
    numbers = rotations.progress(members)
    back = links.one(rotation.pk)
    if not act.fits(rotation, numbers):
        messages.info(request, "Nothing to do: it was done meanwhile.")
        return HttpResponseRedirect(back)
    count = act.count(numbers)
    form = EndForm(request.POST if "confirmed" in request.POST else None, with_file=act.name == "again")
    if not confirmation.is_answered(request, form, count):
        return _ask(request, act, rotation, numbers, form, links)
    try:
        with transaction.atomic():
            nonces.use(request.POST.get("nonce", ""), _purpose(act, rotation), request.user)
        with audit.because(form.cleaned_data["reason"]):
            done = act.run(request, rotation, members)
    except (FormUsed, FormExpired) as error:
        return answers.refused(request, error, back)
    except Overtaken as error:
        messages.error(request, f"{error}.")
        return HttpResponseRedirect(back)
    if isinstance(done, HttpResponseBase):
        return done
    messages.success(request, done)
    return HttpResponseRedirect(back)


def _purpose(act: Act, rotation: Rotation) -> str:
    return f"rotation:{act.name}:{rotation.pk}"


def _ask(
    request: HttpRequest, act: Act, rotation: Rotation, numbers: Progress, form: EndForm, links: Links
) -> HttpResponse:
    count = act.count(numbers)
    words = devices_in_words(count)
    ask = Confirmation(
        question=act.question.format(devices=words) if count else "Finish this rotation now?",
        text=act.text(rotation, numbers),
        verb=act.verb.format(devices=words) if count else "Finish it",
        keep="Leave them" if count else "Leave it open",
        keep_url=links.one(rotation.pk),
        count=count,
        hidden=[("do", act.name), ("nonce", nonces.issue(_purpose(act, rotation), request.user))],
        ends=act.ends,
    )
    is_file = act.name == "again"
    return confirmation.page_with(
        request,
        ask,
        form,
        follow_url=links.one(rotation.pk) if is_file else "",
        follow="Show the rotation",
        progress_url=links.progress(rotation.pk) if is_file else "",
    )


def _again(request: HttpRequest, rotation: Rotation, members: QuerySet[Any]) -> str | HttpResponseBase:
    if not rotations.claim(rotation):
        return "Nothing to do: another file of this rotation is being written."
    form = request.POST["file_format"]
    batches = rotations.issue(rotation, members)
    return credentials_file.answer(
        request, f"rotation-{rotation.pk}", form, batches, reason=request.POST.get("reason", "")
    )


def _finish(request: HttpRequest, rotation: Rotation, members: QuerySet[Any]) -> str:
    count = rotations.finish(rotation, members)
    is_whole = _close(rotation, members, "rotation_finished", count)
    if not count:
        what = "The rotation" if is_whole else "Your part of the rotation"
        return f"{what} is finished. None of these devices had an old password any more."
    return f"The old passwords of {devices_in_words(count)} have ended."


def _roll_back(request: HttpRequest, rotation: Rotation, members: QuerySet[Any]) -> str:
    count = rotations.roll_back(rotation, members)
    _close(rotation, members, "rotation_rolled_back", count)
    old = "old passwords and API keys" if rotation.api_keys else "old passwords"
    return f"{devices_in_words(count)} have their {old} again; the others keep what they have."


def _close(rotation: Rotation, members: QuerySet[Any], action: str, count: int) -> bool:
    """Note the end of *rotation* if *members* are all of its devices; a user of one site ends a part of it.

    Return whether they are all.
    """
    is_whole = bool(members.count() == rotation.members.count())
    rotations.close(rotation, action, count, whole=is_whole)
    return is_whole


def _text_of_again(rotation: Rotation, numbers: Progress) -> str:
    return (
        "They have not used the password that they got. It ends, and the answer is one file with new ones, shown "
        f"this once. Old passwords stay valid. {_keys_of_again(rotation)}{NOT_NOTED}"
    )


def _keys_of_again(rotation: Rotation) -> str:
    if not rotation.api_keys:
        return ""
    if rotation.origin == Rotation.Origin.IMPORT:
        return "Devices that never logged in get a new API key too. "
    return (
        "API keys of an earlier file stay, because devices may use them. If that file is lost, roll back, which "
        "restores the old keys, and begin a new rotation. "
    )


def _text_of_finish(rotation: Rotation, numbers: Progress) -> str:
    if not numbers.overlapping:
        return "None of these devices has an old password any more, so no password ends."
    late = devices_in_words(numbers.restorable)
    text = f"{late} of these did not log in with the new password yet, and cannot log in without it any more."
    ended = numbers.confirmed + numbers.unconfirmed - numbers.overlapping
    return (
        f"{text} Not counted, because they had none or it has ended: {devices_in_words(ended)}."
        if ended
        else text
    )


def _text_of_roll_back(rotation: Rotation, numbers: Progress) -> str:
    keys = KEYS_OF_ROLL_BACK if rotation.api_keys else ""
    without = numbers.unconfirmed - numbers.restorable
    left_out = (
        f"Not counted, because they had none or it has ended: {devices_in_words(without)}. "
        if without
        else ""
    )
    return (
        f"The old password becomes the only one again, and the new one ends. {keys}Devices that used the new password "
        "keep it, and so do those whose password was changed since and those without an old password to restore. "
        f"{left_out}{NOT_NOTED}"
    )


ACTS = {
    act.name: act
    for act in (
        Act(
            "again",
            "Rotate again",
            "Rotate {devices} again",
            "Give {devices} another password?",
            _text_of_again,
            lambda numbers: numbers.waiting + numbers.unconfirmed,
            _again,
            needs_old=False,
            ends=False,
        ),
        Act(
            "finish",
            "Finish now",
            "End the old passwords",
            "End the old passwords of {devices} now?",
            _text_of_finish,
            lambda numbers: numbers.overlapping,
            _finish,
            may_be_empty=True,
        ),
        Act(
            "roll_back",
            "Roll back",
            "Roll back {devices}",
            "Restore the old passwords of {devices}?",
            _text_of_roll_back,
            lambda numbers: numbers.restorable,
            _roll_back,
        ),
    )
}

navigation.register(
    "Rotations",
    "devicehub:rotations",
    group=navigation.ACCESS,
    icon="rotate",
    order=50,
    also="admin:devicehub_rotation_changelist",
    visible=lambda request: visibility.sees_something(getattr(request, "user", None)),
)
