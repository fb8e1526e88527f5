"""A new password by mail: Django's views in the design of the dashboard, with a limit of mails.

Without DEVICEHUB_PASSWORD_RESET the pages do not exist.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any

from django.contrib.auth.forms import PasswordResetForm
from django.contrib.auth.views import (
    PasswordResetCompleteView,
    PasswordResetConfirmView,
    PasswordResetDoneView,
    PasswordResetView,
)
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.urls import reverse_lazy
from django.views.decorators.cache import never_cache

from authsvc import audit
from authsvc.caches import BoundedCache
from authsvc.models import AuditEntry
from authsvc.serving import addresses
from devicehub.conf import settings
from devicehub.dashboard.access import View, strict
from devicehub.models import SignIn

HOUR = 3600.0
MOST = 5  # Mails in an HOUR, to one address and for one client, in one process.

_mailer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mail")
_sent: BoundedCache[str, tuple[float, int]] = BoundedCache(lambda: 10_000)


class Form(PasswordResetForm):
    """The form that mails the link. A thread does it, so that the time of the answer shows no address that exists."""

    def send_mail(self, *args: Any, **kwargs: Any) -> None:
        _mailer.submit(super().send_mail, *args, **kwargs)


class Ask(PasswordResetView):
    """Mail the link, and give the same answer whether there is such a user or not."""

    template_name = "devicehub/password_reset.html"
    email_template_name = "devicehub/password_reset_mail.txt"
    subject_template_name = "devicehub/password_reset_subject.txt"
    success_url = reverse_lazy("devicehub:password_reset_sent")
    form_class = Form

    def form_valid(self, form: Any) -> HttpResponse:
        """Mail the link unless there were too many mails."""
        client = addresses.subscriber(addresses.of_request(self.request))
        if not _has_room(f"to {form.cleaned_data['email'].lower()}", f"for {client}"):
            return self.redirect()
        return super().form_valid(form)

    def redirect(self) -> HttpResponse:
        """Return the answer of a mail that was sent."""
        return super(PasswordResetView, self).form_valid(self.get_form())


class Choose(PasswordResetConfirmView):
    """Take the new password, and end all sessions of the user. A second factor stays."""

    template_name = "devicehub/password_reset_choose.html"
    success_url = reverse_lazy("devicehub:password_reset_done")

    @transaction.atomic
    def form_valid(self, form: Any) -> HttpResponse:
        """Store the password and record it as a change by its user."""
        name = form.user.get_username()
        with audit.acting(audit.Actor(AuditEntry.Kind.USER, name, addresses.of_request(self.request))):
            audit.record("user_password_reset", f"user/{name}")
            SignIn.objects.filter(user_id=form.user.pk).delete()
            return super().form_valid(form)


def _has_room(*keys: str) -> bool:
    """Count a mail for each of *keys*, and return whether each had fewer than MOST in this HOUR."""
    now = time.monotonic()
    counted = []
    for key in keys:
        began, count = _sent.get(key, (now, 0))
        counted.append((key, began, count) if now - began < HOUR else (key, now, 0))
    for key, began, count in counted:
        _sent.put(key, (began, count + 1))
    return all(count < MOST for _, _, count in counted)


def _offered(view: View) -> View:
    @wraps(view)
    def answer(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponseBase:
        if not settings.password_reset:
            raise Http404
        return view(request, *args, **kwargs)

    return strict(never_cache(answer))


ask: Callable[..., HttpResponseBase] = _offered(Ask.as_view())
sent = _offered(PasswordResetDoneView.as_view(template_name="devicehub/password_reset_sent.html"))
choose = _offered(Choose.as_view())
done = _offered(PasswordResetCompleteView.as_view(template_name="devicehub/password_reset_done.html"))
