"""The pages that import devices: the upload, the columns with a verdict for each row, and the file of credentials.

The views take the addresses of their half of the site, so the admin shows the same pages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.core.files.uploadhandler import FileUploadHandler, StopUpload
from django.db import transaction
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
from django.utils.html import format_html_join
from django.utils.text import Truncator
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_http_methods, require_safe

from authsvc import audit
from devicehub import nonces, visibility
from devicehub.bulk import imports
from devicehub.bulk.imports import DEVICE_ID, IGNORED, METADATA, NAME, SITE, TYPE, Limits
from devicehub.bulk.xlsx_package import MAX_BYTES, UnreadableTable
from devicehub.credentials import answers
from devicehub.dashboard import confirmation, credentials_file, navigation
from devicehub.dashboard.access import page
from devicehub.dashboard.bulk import devices_in_words
from devicehub.dashboard.bulk_forms import EndForm
from devicehub.dashboard.confirmation import Confirmation
from devicehub.models import DeviceImport
from devicehub.nonces import FormExpired, FormUsed

MEANINGS = {
    DEVICE_ID: "Device id",
    NAME: "Name",
    SITE: "Site",
    TYPE: "Type",
    METADATA: "Metadata",
    IGNORED: "Leave out",
}
PREVIEWED = (TYPE, NAME, SITE)  # The columns of the preview beside the device id and metadata.
SHOWN_SAMPLE = 24  # Characters of a sample.
NOT_KEPT = "It is called like a secret, so its values are not kept."


@dataclass(frozen=True)
class Links:
    """The addresses of the pages of imports, in one half of the site."""

    start: str
    one: Callable[[int], str]
    progress: Callable[[int], str]
    devices: str
    rotation: Callable[[int], str]


def _links() -> Links:
    return Links(
        start=reverse("devicehub:import_devices"),
        one=lambda number: reverse("devicehub:import", args=[number]),
        progress=lambda number: reverse("devicehub:import_progress", args=[number]),
        devices=reverse("devicehub:overview"),
        rotation=lambda number: reverse("devicehub:rotation", args=[number]),
    )


class UploadForm(forms.Form):
    """A table with devices, and the type of the rows that name none."""

    file = forms.FileField(
        label="Table",
        help_text="CSV or XLSX. Its first line names the columns, such as device_id, name, site, type.",
        widget=forms.FileInput(attrs={"accept": ".csv,.txt,.tsv,.xlsx"}),
    )
    kind = forms.ChoiceField(label="Type", help_text="That of rows that name none.")

    def __init__(self, user: Any, *args: Any) -> None:
        super().__init__(*args)
        kinds = visibility.kinds_of(user, visibility.ADD)
        self.fields["kind"].choices = [(kind.slug, kind.name) for kind in kinds]  # type: ignore[attr-defined]


class ColumnsForm(forms.Form):
    """The meaning of each column, and the type of rows that name none."""

    def __init__(self, user: Any, upload: DeviceImport, data: Any = None) -> None:
        super().__init__(data)
        kinds = visibility.kinds_of(user, visibility.ADD)
        samples = imports.samples(upload)
        for number, heading in enumerate(upload.headings):
            is_secret = imports.is_secret(heading)
            self.fields[f"column{number}"] = forms.ChoiceField(
                label=heading or f"Column {number + 1}",
                choices=[(IGNORED, MEANINGS[IGNORED])] if is_secret else [*MEANINGS.items()],
                initial=upload.columns[number],
                help_text=NOT_KEPT if is_secret else _sampled(samples[number]),
                required=False,
            )
        self.fields["kind"] = forms.ChoiceField(
            label="Type of rows without one",
            choices=[(kind.slug, kind.name) for kind in kinds],
            initial=upload.kind,
        )

    @property
    def columns(self) -> list[str]:
        """The chosen meanings, in the order of the columns."""
        return [value for name, value in self.cleaned_data.items() if name.startswith("column")]

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        if not self.errors:
            try:
                imports.check_columns(self.columns)
            except UnreadableTable as error:
                raise forms.ValidationError(str(error)) from error
        return cleaned


def _sampled(values: Sequence[str]) -> str:
    """Return the help text of a column with sample *values* of it."""
    if not values:
        return "Its first rows are empty."
    shortened = ((Truncator(value).chars(SHOWN_SAMPLE),) for value in values)
    return format_html_join(", ", "<code>{}</code>", shortened)


@dataclass(frozen=True)
class Cell:
    """A cell of the preview: its value, and the problem with it."""

    value: str
    problem: str = ""


def preview(upload: DeviceImport) -> dict[str, Any]:
    """Return the first verdicts as a table: its headings, and for each row its cells, each with its own problem."""
    mapped = zip(upload.headings, upload.columns, strict=False)
    metadata = list(dict.fromkeys(heading for heading, column in mapped if column == METADATA))
    return {
        "headings": [*(MEANINGS[name] for name in PREVIEWED), *metadata],
        "rows": [_row(found, metadata) for found in upload.verdicts],
    }


def _row(found: dict[str, Any], metadata: Sequence[str]) -> dict[str, Any]:
    """Return the row of the verdict *found*. A problem of no column stays one of the whole row."""
    is_own, column, problem = found.get("is_metadata", False), found["column"], found["problem"]

    def cell(name: str, value: str, *, own: bool = False) -> Cell:
        return Cell(value, problem if own is is_own and column == name else "")

    values = found.get("metadata", {})
    return {
        "line": found["line"],
        "verdict": found["verdict"],
        "problem": "" if column else problem,
        "where": column if is_own or not column else MEANINGS[column],
        "device": cell(DEVICE_ID, found["device_id"]),
        "cells": [
            *(cell(name, found[name]) for name in PREVIEWED),
            *(cell(name, values.get(name, ""), own=True) for name in metadata),
        ],
    }


class BoundedUpload(FileUploadHandler):
    """An upload handler that stops a request with too many bytes before they fill the disk."""

    def __init__(self, request: HttpRequest) -> None:
        super().__init__(request)
        self._size = 0

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes:
        self._size += len(raw_data)
        if self._size > MAX_BYTES:
            raise StopUpload(connection_reset=True)
        return raw_data

    def file_complete(self, file_size: int) -> None:
        """Leave the file to the next handler."""


def bounded(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Decorate *view*: the size of an upload is bounded. The token of the form is checked after that."""

    @csrf_exempt
    def answer(request: HttpRequest, *args: Any, **options: Any) -> HttpResponseBase:
        request.upload_handlers.insert(0, BoundedUpload(request))
        response: HttpResponseBase = csrf_protect(view)(request, *args, **options)
        return response

    return answer


@bounded
@page
@require_http_methods(["GET", "HEAD", "POST"])
def import_devices(request: HttpRequest) -> HttpResponseBase:
    """Return the form for a table; a POST keeps its rows and leads on to their verdicts."""
    return start(request, _links())


@page
@require_http_methods(["GET", "HEAD", "POST"])
def show_import(request: HttpRequest, number: int) -> HttpResponseBase:
    """Return the columns and verdicts of an upload; a POST changes the columns or creates the devices."""
    return one(request, number, _links())


@page
@require_safe
def show_progress(request: HttpRequest, number: int) -> HttpResponse:
    """Return in JSON how many rows of an import are done."""
    return progress(request, number)


def limits_of(user: Any) -> Limits:
    """Return the types of which *user* may add devices, and the sites at which."""
    return Limits(
        {kind.slug for kind in visibility.kinds_of(user, visibility.ADD)}, visibility.sites_of(user)
    )


def may_import(user: Any) -> bool:
    """Return whether *user* may add devices of any type."""
    return bool(visibility.kinds_of(user, visibility.ADD))


def start(request: HttpRequest, links: Links) -> HttpResponseBase:
    """Return the form for a table; a POST keeps its rows and leads on to their verdicts."""
    _check(request.user)
    is_upload = request.method == "POST"
    form = UploadForm(request.user, *((request.POST, request.FILES) if is_upload else ()))
    if is_upload and form.is_valid():
        file = form.cleaned_data["file"]
        try:
            upload = imports.store(request.user, file, file.name, form.cleaned_data["kind"])
        except UnreadableTable as error:
            form.add_error("file", f"{error}.")
        else:
            if DEVICE_ID in upload.columns:
                imports.check(upload, limits_of(request.user))
            return HttpResponseRedirect(links.one(upload.pk))
    user: Any = request.user
    open_uploads = DeviceImport.objects.filter(user=user, finished_at=None).order_by("-pk")[:5]
    context = {
        "form": form,
        "links": links,
        "uploads": [(upload, links.one(upload.pk)) for upload in open_uploads],
    }
    return render(request, "devicehub/import.html", context)


def one(request: HttpRequest, number: int, links: Links) -> HttpResponseBase:
    """Return the columns and verdicts of an upload; a POST changes the columns or creates the devices."""
    _check(request.user)
    upload = _find(number, request.user)
    form = ColumnsForm(request.user, upload)
    if request.method == "POST" and not (upload.finished_at or imports.is_running(upload)):
        do = request.POST.get("do")
        if do == "create":
            return _create(request, upload, links)
        if do == "discard":
            upload.delete()
            messages.info(request, "The table is deleted.")
            return HttpResponseRedirect(links.start)
        form = ColumnsForm(request.user, upload, request.POST)
        if form.is_valid():
            upload.columns, upload.kind = form.columns, form.cleaned_data["kind"]
            imports.check(upload, limits_of(request.user))
            return HttpResponseRedirect(links.one(upload.pk))
    running = imports.is_running(upload)
    context = {
        "upload": upload,
        "form": form,
        "links": links,
        "running": running,
        "broke_off": upload.touched_at is not None and not running and not upload.finished_at,
        "progress_url": links.progress(upload.pk) if running else "",
        "rotation_url": links.rotation(upload.rotation_id) if upload.rotation_id else "",
        "new": upload.counts.get("new", 0),
        "exists": upload.counts.get("exists", 0),
        "errors": upload.counts.get("error", 0),
        "preview": preview(upload),
        "lacks_id": DEVICE_ID not in upload.columns,
    }
    return answers.no_store(render(request, "devicehub/import_rows.html", context))


def progress(request: HttpRequest, number: int) -> HttpResponse:
    """Return in JSON how many rows of an import are done."""
    _check(request.user)
    upload = _find(number, request.user)
    over = not imports.is_running(upload)
    title = credentials_file.title(over, upload.finished_at is not None)
    text = f"{devices_in_words(upload.created)} created, {upload.done:,} of {upload.size:,} rows done."
    found = {"done": upload.done, "total": upload.size, "title": title, "text": text, "over": over}
    return answers.no_store(JsonResponse(found))


def _create(request: HttpRequest, upload: DeviceImport, links: Links) -> HttpResponseBase:
    """Return the page that asks, or create the devices and answer with their credentials."""
    count = upload.counts.get("new", 0)
    if not count:
        messages.info(request, "There is no new device in this table.")
        return HttpResponseRedirect(links.one(upload.pk))
    purpose = f"import:{upload.pk}"
    form = EndForm(request.POST if "confirmed" in request.POST else None, with_file=True)
    if not confirmation.is_answered(request, form, count):
        return _ask(request, upload, count, form, links, purpose)
    try:
        with transaction.atomic(), audit.because(form.cleaned_data["reason"]):
            nonces.use(request.POST.get("nonce", ""), purpose, request.user)
            claimed = imports.claim(upload)
    except (FormUsed, FormExpired) as error:
        return answers.refused(request, error, links.one(upload.pk))
    if not claimed:
        messages.info(
            request, "Nothing to do: a file of this import is being written, or was finished meanwhile."
        )
        return HttpResponseRedirect(links.one(upload.pk))
    data = form.cleaned_data
    batches = imports.run(upload, limits_of(request.user))
    return credentials_file.answer(
        request, f"import-{upload.pk}", data["file_format"], batches, reason=data["reason"]
    )


def _ask(
    request: HttpRequest, upload: DeviceImport, count: int, form: EndForm, links: Links, purpose: str
) -> HttpResponse:
    words = devices_in_words(count)
    ask = Confirmation(
        question=f"Create {words}?",
        text="Each gets credentials. The answer is one file with all of them, shown this once.",
        verb=f"Create {words}",
        keep="Not yet",
        keep_url=links.one(upload.pk),
        count=count,
        hidden=[("do", "create"), ("nonce", nonces.issue(purpose, request.user))],
        ends=False,
    )
    return confirmation.page_with(
        request,
        ask,
        form,
        follow_url=links.one(upload.pk),
        follow="Show the import",
        progress_url=links.progress(upload.pk),
    )


def _check(user: Any) -> None:
    if not may_import(user):
        raise PermissionDenied("You may not add devices.")


def _find(number: int, user: Any) -> DeviceImport:
    """Return the upload if it is one of *user*. Raise Http404."""
    upload = DeviceImport.objects.filter(pk=number, user=user).first()
    if upload is None:
        raise Http404
    return upload


navigation.register(
    "Import devices",
    "devicehub:import_devices",
    group=navigation.FLEET,
    icon="firmware",
    order=40,
    also="admin:devicehub_deviceimport_changelist",
    visible=lambda request: may_import(getattr(request, "user", None)),
)
