"""The settings of devicehub: typed, read when they are needed, documented here."""

from __future__ import annotations

import re
from datetime import timedelta
from functools import lru_cache
from typing import NamedTuple

from django.conf import settings as django_settings
from django.template.defaultfilters import pluralize

# The defaults. A session may still hold subscriptions that were made with them.
TOPIC_PREFIX = "things"
MQTT_GROUP = "devicehub"

LESHAN_OBSERVE = ("3303/*/5700", "3304/*/5700")  # Temperature and humidity.

API_RATE = "6000/m"

SECONDS = {"s": 1, "m": 60, "h": 3600}


class RateLimit(NamedTuple):
    """*messages* of one device in *seconds*."""

    messages: int
    seconds: int

    def __str__(self) -> str:
        return f"{self.messages} message{pluralize(self.messages)} in {self.seconds} s"


@lru_cache(maxsize=8)
def rate_limit(text: str) -> RateLimit | None:
    """Return the limit that a text such as `600/m` (s, m or h) names; None for an empty text. Raise ValueError."""
    if not text:
        return None
    match = re.fullmatch(r"([1-9][0-9]{0,8})/([smh])", text)
    if match is None:
        raise ValueError(
            f"{text!r} is not a rate; write a number for each second, minute or hour, such as 600/m"
        )
    return RateLimit(int(match[1]), SECONDS[match[2]])


class Settings:
    """The options of an operator, as DEVICEHUB_* (and MQTT_URL) in the Django settings."""

    @property
    def topic_prefix(self) -> str:
        """DEVICEHUB_TOPIC_PREFIX: first level of every device topic; one level without wildcards."""
        return str(getattr(django_settings, "DEVICEHUB_TOPIC_PREFIX", TOPIC_PREFIX))

    @property
    def mqtt_url(self) -> str:
        """MQTT_URL: the broker that ingest and commands use, as mqtt://user:password@host:port."""
        return str(getattr(django_settings, "MQTT_URL", "mqtt://127.0.0.1:1883"))

    @property
    def device_url(self) -> str:
        """DEVICEHUB_DEVICE_URL: the broker that devices use, as mqtts://host:8883; empty is that of MQTT_URL."""
        return str(getattr(django_settings, "DEVICEHUB_DEVICE_URL", ""))

    @property
    def mqtt_version(self) -> str:
        """DEVICEHUB_MQTT_VERSION: `5` or `3.1.1`. Set, not guessed: see docs/reference/settings.md."""
        return str(getattr(django_settings, "DEVICEHUB_MQTT_VERSION", "5"))

    @property
    def mqtt_group(self) -> str:
        """DEVICEHUB_MQTT_GROUP: group of the ingest workers' shared subscription; empty for a plain subscription."""
        return str(getattr(django_settings, "DEVICEHUB_MQTT_GROUP", MQTT_GROUP))

    @property
    def rate_limit(self) -> RateLimit | None:
        """DEVICEHUB_RATE_LIMIT: messages stored of one device in a time, such as `600/m`; empty means no limit."""
        return rate_limit(str(getattr(django_settings, "DEVICEHUB_RATE_LIMIT", "")))

    @property
    def api_rate(self) -> RateLimit | None:
        """DEVICEHUB_API_RATE: requests of one API key or user that a process answers in a time; empty is unlimited."""
        return rate_limit(str(getattr(django_settings, "DEVICEHUB_API_RATE", API_RATE)))

    @property
    def max_samples(self) -> int:
        """DEVICEHUB_MAX_SAMPLES: samples that one message may have; one with more fails as a whole."""
        return int(getattr(django_settings, "DEVICEHUB_MAX_SAMPLES", 10_000))

    @property
    def mqtt_drops(self) -> list[str]:
        """DEVICEHUB_MQTT_DROPS: topics where the broker counts the messages that it dropped; no wildcards."""
        return [str(topic) for topic in getattr(django_settings, "DEVICEHUB_MQTT_DROPS", [])]

    @property
    def leshan_observe(self) -> list[str]:
        """DEVICEHUB_LESHAN_OBSERVE: paths that `listen_leshan` observes after each registration."""
        return [str(path) for path in getattr(django_settings, "DEVICEHUB_LESHAN_OBSERVE", LESHAN_OBSERVE)]

    @property
    def leshan_password(self) -> str:
        """DEVICEHUB_LESHAN_PASSWORD: the password for the user that the URL of `listen_leshan` names."""
        return str(getattr(django_settings, "DEVICEHUB_LESHAN_PASSWORD", ""))

    @property
    def command_deadline(self) -> timedelta:
        """DEVICEHUB_COMMAND_DEADLINE: how long a command may take, from being queued to its answer."""
        return timedelta(seconds=float(getattr(django_settings, "DEVICEHUB_COMMAND_DEADLINE", 3600)))

    @property
    def quarantine_per_device(self) -> int:
        """DEVICEHUB_QUARANTINE_PER_DEVICE: bytes that the quarantine keeps of one device; the rest is only counted."""
        return int(getattr(django_settings, "DEVICEHUB_QUARANTINE_PER_DEVICE", 10 << 20))

    @property
    def keep_quarantine(self) -> str:
        """DEVICEHUB_KEEP_QUARANTINE: how long quarantined messages are kept, such as `90d`; empty means for ever."""
        return str(getattr(django_settings, "DEVICEHUB_KEEP_QUARANTINE", ""))

    @property
    def lwm2m_adopt(self) -> bool:
        """DEVICEHUB_LWM2M_ADOPT: whether an unknown LwM2M endpoint that a Leshan server names becomes a device."""
        return bool(getattr(django_settings, "DEVICEHUB_LWM2M_ADOPT", False))

    @property
    def password_reset(self) -> bool:
        """DEVICEHUB_PASSWORD_RESET: whether the sign-in offers to mail a link for a new password."""
        return bool(getattr(django_settings, "DEVICEHUB_PASSWORD_RESET", False))


settings = Settings()
