"""The signals of LwM2M. The sender is the model Endpoint."""

from __future__ import annotations

from django.dispatch import Signal

event_recorded = Signal()  # endpoint, event (a models.Event), values (a dict by path, such as `3303/0/5700`)
