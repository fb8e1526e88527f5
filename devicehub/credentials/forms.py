"""The forms that add a device and change its credentials. Each has a field for the operator's reason."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import MAXYEAR, MINYEAR, UTC, datetime, timedelta
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone

from authsvc.audit.actors import MAX_REASON
from authsvc.credentials import UNTIL_USED
from devicehub import provisioning, sites, visibility
from devicehub.kinds.identifiers import is_device_id
from devicehub.kinds.registry import Kind
from devicehub.models import MAX_TAGS, BaseDevice

UNTIL_DATE, UNTIL_NEW, NOW = "date", "used", "now"


def check_year(moment: datetime) -> None:
    """Raise ValidationError for the first and the last year of the calendar, parts of which other zones do not have."""
    if moment.year in (MINYEAR, MAXYEAR):
        raise ValidationError(f"Write a year from {MINYEAR + 1} to {MAXYEAR - 1}.")


class MomentField(forms.DateTimeField):
    """A date and time in UTC, with the browser's own chooser."""

    default_validators = [check_year]

    def __init__(self, **options: Any) -> None:
        widget = forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M")
        super().__init__(widget=widget, **options)

    def to_python(self, value: Any) -> datetime | None:
        with timezone.override(UTC):
            found: datetime | None = super().to_python(value)
        return found

    def prepare_value(self, value: Any) -> Any:
        return value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) else value


class ReasonField(forms.CharField):
    """The reason of a change, for the audit."""

    def __init__(self) -> None:
        super().__init__(
            label="Reason",
            required=False,
            help_text="It stands in the audit beside the change.",
            max_length=MAX_REASON,
            widget=forms.TextInput(attrs={"autocomplete": "off"}),
        )


class TagsField(forms.CharField):
    """The tags of a device in one line."""

    def __init__(self) -> None:
        super().__init__(
            label="Tags",
            required=False,
            max_length=MAX_TAGS * 51,
            help_text="Words of letters, digits, - and _, with spaces between them. A group may select devices by tag.",
            widget=forms.TextInput(attrs={"class": "mono", "autocomplete": "off", "spellcheck": "false"}),
        )

    def clean(self, value: Any) -> list[str]:
        """Return the tags, sorted. Raise ValidationError."""
        tags = sorted(set(re.split(r"[\s,]+", super().clean(value))) - {""})
        if len(tags) > MAX_TAGS:
            raise ValidationError(f"A device has at most {MAX_TAGS} tags.")
        for tag in tags:
            if not re.fullmatch(r"[A-Za-z0-9_-]{1,50}", tag):
                raise ValidationError(
                    f"{tag[:60]} cannot be a tag: use letters, digits, - and _, at most 50."
                )
        return tags


class SiteField(forms.CharField):
    """A site: one of those of a user who is limited to sites, otherwise any text, with the existing ones to choose."""

    def __init__(self, user: Any, kinds: Sequence[Kind]) -> None:
        super().__init__(
            label="Site",
            max_length=100,
            required=visibility.is_limited(user),
            help_text="The place of the device. People can be limited to sites.",
        )
        own = visibility.sites_of(user)
        self.suggested = [] if own is not None else sites.existing(kinds)
        if own is not None:
            self.widget = forms.Select(choices=[(site, site) for site in sorted(own)])
        else:
            self.widget.attrs |= {"list": "sites", "autocomplete": "off"}


def suggested_sites(form: forms.Form | None) -> list[str]:
    """Return the sites that the field of *form* suggests."""
    field = form.fields.get("site") if form is not None else None
    return field.suggested if isinstance(field, SiteField) else []


class DeviceForm(forms.Form):
    """A new device."""

    type = forms.ChoiceField(label="Type")
    device_id = forms.CharField(
        label="Device id",
        max_length=128,
        required=False,
        widget=forms.TextInput(
            attrs={"class": "mono", "autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}
        ),
    )
    name = forms.CharField(label="Name", max_length=255, required=False)

    def __init__(self, *args: Any, user: Any, kinds: Sequence[Kind], free: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self.user = user
        self.fields["type"].choices = [(kind.slug, kind.name) for kind in kinds]  # type: ignore[attr-defined]
        self.fields["device_id"].help_text = (
            "It is in every topic of the device, and cannot be changed later. "
            f"Left empty it is the next free id: {free}."
        )
        self.fields["site"] = SiteField(user, kinds)
        if visibility.may_tag(user):
            self.fields["tags"] = TagsField()
        self.fields["reason"] = ReasonField()

    def clean_device_id(self) -> str:
        device_id: str = self.cleaned_data["device_id"]
        if device_id and not is_device_id(device_id):
            raise ValidationError("Use letters, digits and _ : - only, at most 128.")
        return device_id

    def clean_site(self) -> str:
        return _own_site(self.user, self.cleaned_data["site"])


class RotateForm(forms.Form):
    """A new password, and the end of the old one."""

    ends = forms.ChoiceField(
        label="The old password ends",
        choices=[
            (UNTIL_NEW, "when the new one is first used"),
            (UNTIL_DATE, "at a date"),
            (NOW, "at once"),
        ],
        initial=UNTIL_NEW,
        widget=forms.RadioSelect,
    )
    until = MomentField(
        label="Date, in UTC", required=False, help_text="Both passwords are valid until then."
    )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["until"].initial = (timezone.now() + timedelta(days=1)).replace(second=0, microsecond=0)
        self.fields["reason"] = ReasonField()

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        until = cleaned.get("until")
        if cleaned.get("ends") != UNTIL_DATE or "until" in self.errors:
            return cleaned
        now = timezone.now()
        try:
            provisioning.check_end(until or now, now)
        except provisioning.InvalidOverlap as error:
            self.add_error("until", str(error))
        return cleaned

    @property
    def valid_until(self) -> datetime | None:
        """The end of the old password, as rotate_password() takes it."""
        until: datetime | None = self.cleaned_data["until"]
        return {UNTIL_NEW: UNTIL_USED, UNTIL_DATE: until, NOW: None}[self.cleaned_data["ends"]]


class ReasonForm(forms.Form):
    """A change without further fields."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["reason"] = ReasonField()


class ExpiryForm(forms.Form):
    """The date from which on the password is refused."""

    expires_at = MomentField(
        label="The password expires, in UTC", required=False, help_text="Left empty it does not expire."
    )

    def __init__(self, *args: Any, device: BaseDevice, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["expires_at"].initial = device.password_expires_at
        self.fields["reason"] = ReasonField()


class SiteForm(forms.Form):
    """Another site for a device."""

    def __init__(self, *args: Any, user: Any, device: BaseDevice, kind: Kind, **options: Any) -> None:
        super().__init__(*args, **options)
        self.user = user
        self.fields["site"] = SiteField(user, [kind])
        self.fields["site"].initial = device.site
        self.fields["reason"] = ReasonField()

    def clean_site(self) -> str:
        return _own_site(self.user, self.cleaned_data["site"])


def _own_site(user: Any, site: str) -> str:
    """Return *site* if *user* may put a device there. Raise ValidationError."""
    own = visibility.sites_of(user)
    if own is not None and site not in own:
        raise ValidationError("Choose one of your sites.")
    return site
