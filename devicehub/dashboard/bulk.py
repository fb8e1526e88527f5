"""Acts on many devices: the page that names their number, and the act itself.

Lists of devices, in the admin and on the dashboard, call answer() with the devices that were chosen:

    selection = Selection(kind, devices, keep_url=request.get_full_path(), hidden=[("action", "disable"), ...])
    return bulk.answer(request, "disable", selection)

Permissions and sites are checked here, each time; the caller does not have to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.defaultfilters import pluralize
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.http import urlencode

from authsvc import audit
from devicehub import nonces, visibility
from devicehub.bulk import changes, rotations
from devicehub.bulk.rotations import TooManyDevices
from devicehub.credentials import answers
from devicehub.credentials.forms import suggested_sites
from devicehub.dashboard import confirmation, credentials_file
from devicehub.dashboard.bulk_forms import CommandManyForm, ManyForm, MoveManyForm, RotateManyForm
from devicehub.dashboard.confirmation import Confirmation
from devicehub.kinds.registry import Kind
from devicehub.nonces import FormExpired, FormUsed
from devicehub.states import REVOKED

SHOWN = 8  # Ids that the page names.


@dataclass(frozen=True)
class Selection:
    """The *devices* of *kind* that a user chose. *hidden* are the fields that choose them again.

    *rotation_url* and *progress_url* are the addresses for rotation 0, in place of the one that begins.
    """

    kind: Kind
    devices: QuerySet[Any]
    keep_url: str
    hidden: Sequence[tuple[str, str]] = ()
    rotations_url: str = ""
    rotation_url: str = ""
    progress_url: str = ""


Run = Callable[[HttpRequest, Selection, Any], str | HttpResponseBase]


@dataclass(frozen=True)
class Act:
    """One act: its words, its form and the function that does it, which returns a sentence or an answer."""

    verb: str
    question: str  # {devices} is "12 devices".
    text: str
    run: Run
    form: Callable[[Any, Kind, Any], ManyForm] = ManyForm
    keep: str = "Keep them"
    ends: bool = True
    caution: Callable[[Selection], str] = lambda selection: ""  # A sentence about the chosen devices.
    permission: str = ""  # One that the act needs besides that to change devices.


def may(user: Any, name: str, kind: Kind) -> bool:
    """Return whether *user* may do the act *name* on devices of *kind*."""
    act = ACTS[name]
    if name == "send" and not kind.commands:
        return False
    allowed = visibility.may(user, visibility.CHANGE, kind.device_model)
    return allowed and (not act.permission or bool(user.has_perm(act.permission)))


def answer(request: HttpRequest, name: str, selection: Selection) -> HttpResponseBase:
    """Return the page that asks before the act *name*, or do the act and return its answer."""
    act, kind, user = ACTS[name], selection.kind, request.user
    if request.method != "POST" or not may(user, name, kind):
        raise PermissionDenied("You may not do this with these devices.")
    own = visibility.of_sites(selection.devices, user)
    chosen = replace(selection, devices=own)
    count = own.count()
    if not count:
        messages.info(request, "No device is chosen.")
        return HttpResponseRedirect(selection.keep_url)
    purpose = f"many:{name}:{kind.slug}"
    is_answer = "confirmed" in request.POST
    form = act.form(user, kind, request.POST if is_answer else None)
    if is_answer and request.POST.get("count") != str(count):
        form.add_error(None, f"Other devices fit the list now: {count:,} in all.")
    if not confirmation.is_answered(request, form, count):
        return _page(request, act, chosen, count, form, purpose)
    try:
        with transaction.atomic():
            nonces.use(request.POST.get("nonce", ""), purpose, user)
        with audit.because(form.cleaned_data["reason"]):
            done = act.run(request, chosen, form)
    except (FormUsed, FormExpired) as error:
        return answers.refused(request, error, selection.keep_url)
    except TooManyDevices as error:
        form.add_error(None, str(error))
        return _page(request, act, chosen, count, form, purpose)
    if isinstance(done, HttpResponseBase):
        return done
    messages.success(request, done)
    return HttpResponseRedirect(selection.keep_url)


def _page(
    request: HttpRequest, act: Act, selection: Selection, count: int, form: ManyForm, purpose: str
) -> HttpResponse:
    """Return the page that asks. Without a wrong field after an answer, the number that was typed is wrong."""
    words = devices_in_words(count)
    names = list(selection.devices.order_by("device_id").values_list("device_id", flat=True)[:SHOWN])
    if count > SHOWN:
        names.append(f"and {count - SHOWN:,} more")
    ask = Confirmation(
        question=act.question.format(devices=words),
        text=f"{act.text}{act.caution(selection)}",
        verb=f"{act.verb} {words}",
        keep=act.keep,
        keep_url=selection.keep_url,
        count=count,
        hidden=[*selection.hidden, ("count", str(count)), ("nonce", nonces.issue(purpose, request.user))],
        names=names,
        ends=act.ends,
    )
    more = {}
    if isinstance(form, RotateManyForm):
        more = {
            "follow_url": selection.rotations_url,
            "rotation_url": selection.rotation_url,
            "rotation_progress_url": selection.progress_url,
        }
    return confirmation.page_with(request, ask, form, sites=suggested_sites(form), **more)


def devices_in_words(count: int) -> str:
    """Return `1 device` or `1,284 devices`."""
    return f"{count:,} device{pluralize(count)}"


def _rotate(request: HttpRequest, selection: Selection, form: RotateManyForm) -> HttpResponseBase:
    data = form.cleaned_data
    rotation = rotations.start(
        data["name"], [(selection.kind, selection.devices)], until=form.until, api_keys=data["api_keys"]
    )
    rotations.claim(rotation)
    # The devices of each batch are at a site of the user still: the file may take minutes.
    members = visibility.rows(rotation.members.all(), request.user, action=visibility.CHANGE)
    batches = rotations.issue(rotation, members)
    name = f"rotation-{rotation.pk}"
    return credentials_file.answer(request, name, data["file_format"], batches, reason=data["reason"])


def _of_revoked(selection: Selection) -> str:
    """Return the sentence about the revoked ones of the devices; "" without any."""
    count = selection.devices.filter(REVOKED).count()
    if count == 1:
        return " 1 of them is revoked, and can log in again with its new password."
    return f" {count:,} of them are revoked, and can log in again with their new passwords." if count else ""


def _revoke(request: HttpRequest, selection: Selection, form: forms.Form) -> str:
    count = changes.revoke(selection.kind, selection.devices)
    return f"The credentials of {devices_in_words(count)} have ended."


def _disable(request: HttpRequest, selection: Selection, form: forms.Form) -> str:
    count = changes.disable(selection.kind, selection.devices)
    return f"{devices_in_words(count)} disabled: no login, and no message is stored."


def _enable(request: HttpRequest, selection: Selection, form: forms.Form) -> str:
    return f"{devices_in_words(changes.enable(selection.kind, selection.devices))} enabled."


def _move(request: HttpRequest, selection: Selection, form: forms.Form) -> str:
    site = form.cleaned_data["site"]
    count = changes.move(selection.kind, selection.devices, site)
    return f"{devices_in_words(count)} moved to {site or 'no site'}."


def _send(request: HttpRequest, selection: Selection, form: forms.Form) -> str | HttpResponseBase:
    """Queue the command, and lead on to the list of such commands if the user may see it."""
    data = form.cleaned_data
    keys = [selection.kind.key(name) for name in selection.devices.values_list("device_id", flat=True)[:2]]
    count = changes.send(selection.kind, selection.devices, data["command"], data["payload"])
    notice = f"{data['command']} is queued for {devices_in_words(count)}."
    url = _commands_url(request.user, data["command"], keys)
    if not url:
        return notice
    link = '{} <a class="dh-link" href="{}">Back to where you were</a>'
    messages.success(request, format_html(link, notice, selection.keep_url))
    return HttpResponseRedirect(url)


def _commands_url(user: Any, command: str, keys: Sequence[str]) -> str:
    """Return the list of commands: those of the one device in *keys*, or of the last hour; empty without the right."""
    if not (user.is_staff and user.has_perm("devicehub.view_devicecommand")):
        return ""
    try:
        url = reverse("admin:devicehub_devicecommand_changelist")
    except NoReverseMatch:
        return ""
    chosen = {"q": keys[0]} if len(keys) == 1 else {"since": "1h"}
    return f"{url}?{urlencode({'name': command, **chosen})}"


def _rotate_form(user: Any, kind: Kind, data: Any) -> ManyForm:
    form = RotateManyForm(user, kind, data)
    form.fields["name"].initial = f"{kind.name} {timezone.now():%Y-%m-%d %H:%M}"
    return form


ACTS: Mapping[str, Act] = {
    "rotate": Act(
        "Rotate",
        "Rotate the credentials of {devices}?",
        "Each gets a new password. The answer is one file with all of them, shown this once. Until the old passwords "
        "end, the rotation can be rolled back.",
        _rotate,
        _rotate_form,
        ends=False,
        caution=_of_revoked,
    ),
    "revoke": Act(
        "Revoke",
        "Revoke the credentials of {devices}?",
        "Passwords, API keys and tokens end at once, and no login succeeds until each device has new ones. "
        "Rotate their credentials to come back.",
        _revoke,
    ),
    "disable": Act(
        "Disable",
        "Disable {devices}?",
        "Every question about them is denied from now on, and none of their messages is stored. "
        "Enable them to come back; their credentials stay.",
        _disable,
    ),
    "enable": Act(
        "Enable",
        "Enable {devices}?",
        "They can log in and send again with their credentials. A requested removal of one of them is cancelled.",
        _enable,
        keep="Leave them",
        ends=False,
    ),
    "move": Act(
        "Move",
        "Move {devices} to a site?",
        "People who are limited to sites see a device only at one of theirs. Move them again to come back.",
        _move,
        MoveManyForm,
        keep="Leave them",
        ends=False,
    ),
    "send": Act(
        "Send to",
        "Send a command to {devices}?",
        "Each enabled device gets it as soon as it is connected, within the deadline. Queued commands can be "
        "cancelled in the list of commands.",
        _send,
        CommandManyForm,
        keep="Send nothing",
        ends=False,
        permission="devicehub.add_devicecommand",
    ),
}
