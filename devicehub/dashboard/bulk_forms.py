"""The fields on the confirmation pages of acts on many devices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.core.exceptions import PermissionDenied
from django.utils import timezone

from authsvc.credentials import UNTIL_USED
from devicehub import visibility
from devicehub.credentials.forms import ReasonField, SiteField
from devicehub.kinds.declare import Command
from devicehub.kinds.registry import Kind

FORMATS = [("csv", "CSV, for people and spreadsheets"), ("json", "JSON, for programs")]
ENDS = [
    ("used", "when the new one is first used"),
    ("24h", "in 24 hours"),
    ("7d", "in 7 days"),
    ("30d", "in 30 days"),
    ("now", "at once"),
]
DAYS = {"24h": 1, "7d": 7, "30d": 30}


class EndForm(forms.Form):
    """The reason of an act on a rotation or an import; with *with_file* also the form of the file that it answers."""

    def __init__(self, data: Any = None, *, with_file: bool) -> None:
        super().__init__(data)
        if with_file:
            self.fields["file_format"] = _file_format()
        self.fields["reason"] = ReasonField()


def _file_format() -> forms.ChoiceField:
    return forms.ChoiceField(label="File", choices=FORMATS, initial="csv", widget=forms.RadioSelect)


class ManyForm(forms.Form):
    """The fields of an act on many devices: those of the act, and a reason for the audit."""

    def __init__(self, user: Any, kind: Kind, data: Any = None) -> None:
        self.user, self.kind = user, kind
        super().__init__(data)
        self.add_fields()
        self.fields["reason"] = ReasonField()

    def add_fields(self) -> None:
        """Add the fields that depend on the user and the kind."""


class RotateManyForm(ManyForm):
    name = forms.CharField(
        max_length=100, label="Name of the rotation", help_text="Under this name it is watched until it ends."
    )
    ends = forms.ChoiceField(
        label="Each old password ends", choices=ENDS, initial="used", widget=forms.RadioSelect
    )
    api_keys = forms.BooleanField(
        label="New API keys too", required=False, help_text="The old keys and all tokens end at once."
    )
    file_format = _file_format()

    @property
    def until(self) -> datetime | None:
        """The end of the old passwords, as rotations.start() takes it."""
        chosen = self.cleaned_data["ends"]
        if chosen == "now":
            return None
        return UNTIL_USED if chosen == "used" else timezone.now() + timedelta(days=DAYS[chosen])


class MoveManyForm(ManyForm):
    def add_fields(self) -> None:
        """Add the choice of a site."""
        self.fields["site"] = SiteField(self.user, [self.kind])

    def clean_site(self) -> str:
        """Return the site. Raise ValidationError for one that the user may not choose, or that cannot be shown."""
        site: str = self.cleaned_data["site"].strip()
        if not site.isprintable():
            raise forms.ValidationError("Use letters, digits and signs that can be printed.")
        try:
            visibility.check_site(self.user, site)
        except PermissionDenied as error:
            raise forms.ValidationError(str(error)) from error
        return site


class CommandManyForm(ManyForm):
    """The choice of a command with the fields of its parameters. Only the fields of the chosen command are read."""

    command = forms.ChoiceField(widget=forms.RadioSelect)

    def add_fields(self) -> None:
        """Add the commands of the kind, and a field for each parameter."""
        self.fields["command"].choices = [  # type: ignore[attr-defined]
            (name, f"{name}: {command.description}" if command.description else name)
            for name, command in self.kind.commands.items()
        ]
        for name, command in self.kind.commands.items():
            for parameter, type_ in command.payload.items():
                field = _parameter(parameter, type_)
                field.needed = f"of {name}, optional" if type_ is str else f"of {name}"  # type: ignore[attr-defined]
                self.fields[f"{name}.{parameter}"] = field

    def clean(self) -> dict[str, Any]:
        """Return the cleaned data with *payload*. Parameters that are missing get an error."""
        cleaned = super().clean() or {}
        command = self.kind.commands.get(cleaned.get("command", ""))
        if command is not None:
            cleaned["payload"] = dict(self._payload(command, cleaned))
            self._check(command, cleaned["payload"])
        return cleaned

    def _payload(self, command: Command, cleaned: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for parameter, type_ in command.payload.items():
            field = f"{command.name}.{parameter}"
            value = cleaned.get(field)
            if type_ is bool:
                yield parameter, bool(value)
            elif value is None or (value == "" and type_ is not str):
                self.add_error(field, f"{command.name} needs {parameter}.")
            else:
                yield parameter, value

    def _check(self, command: Command, payload: dict[str, Any]) -> None:
        if self.errors:
            return
        try:
            command.validate_payload(payload)
        except (ValueError, TypeError) as error:
            raise forms.ValidationError(str(error)) from error


def _parameter(parameter: str, type_: type) -> forms.Field:
    about: dict[str, Any] = {"label": parameter.replace("_", " ").capitalize(), "required": False}
    if type_ is int:
        return forms.IntegerField(**about)
    if type_ is float:
        return forms.FloatField(**about)
    if type_ is bool:
        return forms.BooleanField(**about)
    if type_ is str:
        return forms.CharField(max_length=1000, **about)
    return forms.JSONField(help_text=f"JSON: {'a list' if type_ is list else 'an object'}.", **about)
