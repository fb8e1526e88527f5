"""Tags, heartbeat and rate limit of one device as fields of its form. They stand in tables of their own."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.http import HttpRequest

from devicehub import provisioning, visibility
from devicehub.admin.base import ModelAdmin
from devicehub.admin.widgets import LinesInput
from devicehub.conf import settings
from devicehub.credentials.forms import TagsField
from devicehub.kinds.registry import Kind, registry
from devicehub.models import MAX_TAGS, BaseDevice, DeviceOptions, DeviceTag
from devicehub.models.groups import LONGEST_HEARTBEAT, validate_rate

# The names begin with device_, since a type may declare values called tags or rate_limit.
TAGS, HEARTBEAT, RATE = "device_tags", "device_heartbeat", "device_rate_limit"
FIELDS = (TAGS, HEARTBEAT, RATE)
COLUMNS = {HEARTBEAT: "expected_heartbeat", RATE: "rate_limit"}


class TagLinesField(TagsField):
    """The tags of a device, one per line or with commas between them."""

    def __init__(self) -> None:
        super().__init__()
        self.widget = LinesInput(attrs={"rows": 3})
        self.help_text = (
            f"One per line or with commas between them, at most {MAX_TAGS}: letters, digits, - and _. "
            "A group may select devices by tag."
        )

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> str:
        """Return the text with line ends of one character, so that its bound holds for lines as for commas."""
        return str(super().to_python(value) or "").replace("\r\n", "\n")

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return sorted(initial or ()) != self.clean(data)
        except ValidationError:
            return True


class SecondsField(forms.FloatField):
    """A number of seconds, shown without a fraction of zero."""

    def prepare_value(self, value: Any) -> Any:
        return int(value) if isinstance(value, float) and value.is_integer() else value


class OptionsForm(forms.ModelForm):  # type: ignore[type-arg]
    """The fields of a device that are not columns of its table."""

    device_tags = TagLinesField()
    device_heartbeat = SecondsField(
        label="Expected heartbeat",
        required=False,
        validators=[MinValueValidator(1), MaxValueValidator(LONGEST_HEARTBEAT)],
        widget=forms.NumberInput(attrs={"class": "dh-lines", "step": "any"}),
        error_messages={
            "invalid": "Write a number of seconds, such as 300.",
            "min_value": "Write 1 second or more.",
            "max_value": f"Write {LONGEST_HEARTBEAT:,} seconds (30 days) or less.",
        },
    )
    device_rate_limit = forms.CharField(
        label="Rate limit",
        required=False,
        max_length=40,
        validators=[validate_rate],
        widget=forms.TextInput(attrs={"class": "dh-lines", "autocomplete": "off", "spellcheck": "false"}),
    )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        own = [name for name in FIELDS if name in self.fields]
        kind = registry.of(type(self.instance))
        if kind is None or not own:
            return
        for name, text in (
            (HEARTBEAT, f"Seconds between two of its messages. Empty: {_of_type(kind)}."),
            (RATE, f"Messages stored in a second, minute or hour, such as 60/m. Empty: {_of_all()}."),
        ):
            if name in own:
                self.fields[name].help_text = text
        if self.instance.pk:
            self.initial.update((name, value) for name, value in _read(self.instance).items() if name in own)


class WithOptions(ModelAdmin):
    """The admin of a device model: its form has these fields for users who may change them; others read them."""

    def closed_options(self, request: HttpRequest) -> list[str]:
        """Return the fields that the user of *request* may not change."""
        may = {TAGS: visibility.may_tag(request.user)}
        may |= dict.fromkeys(COLUMNS, visibility.may(request.user, visibility.CHANGE, DeviceOptions))
        return [name for name in FIELDS if not may[name] or registry.of(self.model) is None]

    def hidden_options(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Return the closed fields that have nothing to show: those of a new device, or of a table they may not see."""
        seen = {TAGS: DeviceTag, HEARTBEAT: DeviceOptions, RATE: DeviceOptions}
        return [
            name
            for name in self.closed_options(request)
            if obj is None
            or registry.of(self.model) is None
            or not visibility.may(request.user, visibility.VIEW, seen[name])
        ]

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **options: Any) -> Any:
        """Return the form. Fields that a project's own sections leave out are not in it, so no save empties them."""
        form = super().get_form(request, obj, change=change, **options)
        shown = options.get("fields")
        absent = [name for name in FIELDS if shown is not None and name not in shown]
        return type(form.__name__, (form,), dict.fromkeys(absent)) if absent else form

    @admin.display(description="Tags")
    def device_tags(self, device: BaseDevice) -> str:
        return ", ".join(_read(device)[TAGS])

    @admin.display(description="Expected heartbeat")
    def device_heartbeat(self, device: BaseDevice) -> str:
        own, kind = _read(device)[HEARTBEAT], registry.of(device)
        if own:
            return f"{own:g} s"
        return _of_type(kind) if kind else ""

    @admin.display(description="Rate limit")
    def device_rate_limit(self, device: BaseDevice) -> str:
        return _read(device)[RATE] or _of_all()

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Save the changed ones of these fields after the row and its entry in the audit; they record themselves."""
        super().save_related(request, form, formsets, change)
        closed = self.closed_options(request)
        given = {
            name: form.cleaned_data[name]
            for name in FIELDS
            # A field that the request left out is not one that was emptied.
            if name in form.changed_data and form.add_prefix(name) in form.data and name not in closed
        }
        key = provisioning.key_of(form.instance) if given else ""
        if TAGS in given:
            provisioning.set_tags(key, given.pop(TAGS))
        if given:
            kept = _read(form.instance)
            values = {column: given.get(name, kept[name]) for name, column in COLUMNS.items()}
            provisioning.set_options(key, **values)


def _read(device: BaseDevice) -> dict[str, Any]:
    """Return the tags of *device* and its own options by the names of the fields."""
    key = provisioning.key_of(device)
    row = DeviceOptions.objects.filter(device_key=key).first() or DeviceOptions()
    own = {name: getattr(row, column) for name, column in COLUMNS.items()}
    return {TAGS: provisioning.tags_of(key), **own}


def _of_type(kind: Kind) -> str:
    return f"{kind.heartbeat_interval:g} s, the interval of its type"


def _of_all() -> str:
    """Return the limit of devices without one of their own, in words."""
    limit = settings.rate_limit
    return f"{limit}, by DEVICEHUB_RATE_LIMIT" if limit else "no limit, as DEVICEHUB_RATE_LIMIT is not set"
