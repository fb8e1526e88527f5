"""The login with which a stream was opened, checked again while it is open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from django.contrib.auth import SESSION_KEY, get_user, get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.db import DatabaseError
from django.http import HttpRequest

from devicehub import sessions, visibility
from devicehub.models import ApiKey

log = structlog.get_logger(__name__)


class Login:
    """The session, the user and the limits with which a stream was opened. *scope_of* returns the limits of a user."""

    def __init__(
        self, request: HttpRequest, user: AbstractBaseUser, scope_of: Callable[[Any], object]
    ) -> None:
        """Take the session from *request*, whose user is *user*."""
        session: Any = getattr(request, "session", {})
        self._scope_of = scope_of
        self._user_pk = user.pk
        self._sessions = type(session) if SESSION_KEY in session else None
        self._session_key = session.session_key if self._sessions else None
        self._scope = scope_of(user)

    def counts(self) -> bool:
        """Return whether a new request with this login would have the same user with the same limits.

        False after a sign-out, the end of the session or a new password, when the user is deactivated or deleted,
        when their permissions or sites changed, and when the login cannot be read.
        """
        try:
            user = self._user()
            return bool(user.pk == self._user_pk and self._scope_of(user) == self._scope)
        except DatabaseError as error:
            # The client connects again on its own.
            log.warning("live.database_away", error=type(error).__name__)
            return False

    def _user(self) -> AbstractBaseUser | AnonymousUser:
        if self._sessions is None:  # A middleware of the project identifies its users without a session.
            users = get_user_model()._default_manager.filter(pk=self._user_pk)
            return next((user for user in users if user.is_active), AnonymousUser())
        request = HttpRequest()
        request.session = self._sessions(self._session_key)
        user: AbstractBaseUser | AnonymousUser = sessions.admitted(request.session, get_user(request))
        return user


class KeyLogin(Login):
    """The API key with which a stream was opened: it ends with the key, and when the scopes of the key change."""

    def __init__(self, key: ApiKey, user: AbstractBaseUser, scope_of: Callable[[Any], object]) -> None:
        """Take the key of *user*, narrowed to the site of the key already."""
        self._scope_of = scope_of
        self._user_pk = user.pk
        self._key_pk, self._scopes = key.pk, list(key.scopes)
        self._scope = scope_of(user)

    def _user(self) -> AbstractBaseUser | AnonymousUser:
        key = ApiKey.objects.select_related("owner").filter(pk=self._key_pk).first()
        if key is None or key.has_expired() or not key.owner.is_active or key.scopes != self._scopes:
            return AnonymousUser()
        if key.site:
            visibility.narrow(key.owner, key.site)
        user: AbstractBaseUser = key.owner
        return user
