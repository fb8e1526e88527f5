"""The filters that lists share: a text, a choice, a period of time, and true or false."""

from __future__ import annotations

from typing import Any, ClassVar

import django_filters
from django import forms
from rest_framework import serializers

from devicehub.api.fields import Moment


class Settled(django_filters.Filter):
    """A filter whose defaults are its own, and not the settings FILTERS_* of a project."""

    def __init__(self, field_name: str | None = None, lookup_expr: str = "exact", **options: Any) -> None:
        super().__init__(field_name, lookup_expr, **options)


class TextFilter(Settled, django_filters.CharFilter):
    """A filter by a text."""


class ChoiceFilter(Settled, django_filters.ChoiceFilter):
    """A filter by one of some words."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"empty_label": "", "null_label": None, "null_value": "null", **options})


class MomentField(forms.CharField):
    """A parameter with a time, as fields.Moment reads it."""

    def clean(self, value: Any) -> Any:
        """Return the time in *value*, None for an empty one. Raise ValidationError."""
        text = super().clean(value)
        if not text:
            return None
        try:
            return Moment().to_internal_value(text)
        except serializers.ValidationError as error:
            raise forms.ValidationError([str(one) for one in error.detail]) from error


class MomentFilter(Settled, django_filters.IsoDateTimeFilter):
    """A filter by a time with a zone."""

    field_class = MomentField


class TruthField(forms.CharField):
    """A parameter that is `true` or `false`."""

    def clean(self, value: Any) -> Any:
        """Return True or False, None for an empty *value*. Raise ValidationError."""
        text = super().clean(value)
        if text not in ("", "true", "false"):
            raise forms.ValidationError("Write true or false.")
        return None if not text else text == "true"


class TruthFilter(Settled, django_filters.BooleanFilter):
    """A filter by `true` or `false`; other texts are refused."""

    field_class = TruthField


class PeriodFilterSet(django_filters.FilterSet):
    """Filters with `from` and `to`, the beginning and the end of a period of the column *moment*."""

    moment: ClassVar[str] = "received_at"

    @classmethod
    def get_filters(cls) -> Any:
        """Return the filters, with two whose names are not those of Python."""
        found = super().get_filters()
        found["from"] = MomentFilter(field_name=cls.moment, lookup_expr="gte", help_text="From this time on.")
        found["to"] = MomentFilter(field_name=cls.moment, lookup_expr="lt", help_text="Before this time.")
        return found
