"""The settings of authsvc: typed, read when they are needed, documented here."""

from __future__ import annotations

import functools
from typing import Any

from django.conf import settings as django_settings
from django.core.signals import setting_changed

from authsvc.dialects.base import Options


class Settings:
    """What an operator may set, as AUTHSVC_* in the Django settings."""

    @property
    def directories(self) -> list[str]:
        """AUTHSVC_DIRECTORIES: dotted paths of the directories that know principals; all are asked."""
        default = ["authsvc.directory.AccountDirectory"]
        return list(getattr(django_settings, "AUTHSVC_DIRECTORIES", default))

    @property
    def bind_client_ids(self) -> bool:
        """AUTHSVC_CLIENT_ID: `bound` (a client connects under its own client ids) or `any`."""
        return bool(getattr(django_settings, "AUTHSVC_CLIENT_ID", "bound") != "any")

    @property
    def emqx_rules_ttl(self) -> int:
        """AUTHSVC_EMQX_RULES_TTL: seconds after which EMQX asks again for rules it holds itself."""
        return int(getattr(django_settings, "AUTHSVC_EMQX_RULES_TTL", 3600))

    @property
    def rabbitmq_vhost(self) -> str:
        """AUTHSVC_RABBITMQ_VHOST: the one virtual host that MQTT clients may use."""
        return str(getattr(django_settings, "AUTHSVC_RABBITMQ_VHOST", "/"))

    @property
    def rabbitmq_exchange(self) -> str:
        """AUTHSVC_RABBITMQ_EXCHANGE: the topic exchange of RabbitMQ's MQTT plugin (its `mqtt.exchange`)."""
        return str(getattr(django_settings, "AUTHSVC_RABBITMQ_EXCHANGE", "amq.topic"))


settings = Settings()


@functools.cache
def options() -> Options:
    """The dialects' options, kept until a setting changes (which happens in tests)."""
    return Options(
        rabbitmq_vhost=settings.rabbitmq_vhost,
        rabbitmq_exchange=settings.rabbitmq_exchange,
        emqx_rules_ttl=settings.emqx_rules_ttl,
    )


def _forget(**_: Any) -> None:
    options.cache_clear()


setting_changed.connect(_forget, dispatch_uid="authsvc.conf.options")
