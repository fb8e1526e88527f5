"""The state of a device's credentials, without any secret: for the panel on pages, and for the API."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.utils import timezone

from authsvc.credentials import UNTIL_USED
from authsvc.models import LastLogin
from authsvc.text import in_utc
from devicehub.kinds.registry import Kind
from devicehub.models import BaseDevice

SOON = timedelta(days=14)  # The pill names an expiry from so long before it on.
MARGIN = 0.15  # The part of the bars that is left free before the first and behind the last moment.
LATEST = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Bar:
    """One password as a bar over time: *start* and *width* in percent of the row."""

    label: str
    css: str
    start: str
    width: str


@dataclass(frozen=True)
class Bars:
    """The validity of the passwords over time, and in words."""

    bars: list[Bar]
    today: str
    first: str
    last: str
    words: str


@dataclass(frozen=True)
class Overlap:
    """Two passwords are valid: the one before ends at *until*, or when the current one is first used (None)."""

    until: datetime | None
    is_new_used: bool
    new_used_at: datetime | None
    old_used_at: datetime | None


@dataclass(frozen=True)
class Panel:
    """The credentials of one device. *state* is one of the words in STATES."""

    key: str
    state: str
    username: str
    client_ids: tuple[str, ...]
    has_password: bool
    has_api_key: bool
    is_active: bool
    changed_at: datetime | None
    expires_at: datetime | None
    overlap: Overlap | None
    first_login_at: datetime | None
    last_login_at: datetime | None
    last_login_broker: str
    last_login_client_id: str
    last_login_address: str
    bars: Bars | None

    @property
    def word(self) -> str:
        """The word of the state on pages; an expiry says in how many days it is."""
        if self.state == "ends" and self.expires_at is not None:
            left = self.expires_at - timezone.now()
            return f"Ends in {left.days} d" if left.days else "Ends today"
        return STATES[self.state][0]

    @property
    def tone(self) -> str:
        return STATES[self.state][1]

    @property
    def glyph(self) -> str:
        return STATES[self.state][2]


# The word, the tone and the glyph of each state.
STATES = {
    "valid": ("Valid", "good", "done"),
    "ends": ("Ends soon", "warn", "expires"),
    "two": ("Two valid", "busy", "part"),
    "unused": ("Not used yet", "off", "wait"),
    "expired": ("Expired", "warn", "expires"),
    "revoked": ("Revoked", "bad", "revoked"),
    "none": ("No credentials", "off", "never"),
    "key": ("API key only", "off", "part"),
}


def of(kind: Kind, device: BaseDevice) -> Panel:
    """Return the state of the credentials of *device*; one query, for its last login."""
    key = kind.key(device.device_id)
    login = LastLogin.objects.filter(key=key).first()
    now = timezone.now()
    overlap = _overlap(device, login, now)
    ids = (device.mqtt_username or "", device.device_id, device.mqtt_client_id or "")
    return Panel(
        key=key,
        state=_state(device, login, overlap, now),
        username=device.mqtt_username or "",
        client_ids=tuple(name for name in ids if name),
        has_password=bool(device.mqtt_password_hash),
        has_api_key=device.api_key is not None,
        is_active=device.is_active,
        changed_at=device.credentials_changed_at,
        expires_at=device.password_expires_at,
        overlap=overlap,
        first_login_at=login.first_at if login else None,
        last_login_at=login.at if login else None,
        last_login_broker=login.broker if login else "",
        last_login_client_id=login.client_id if login else "",
        last_login_address=login.address if login else "",
        bars=_bars(device, overlap, now) if device.mqtt_password_hash else None,
    )


def used_at(device: BaseDevice, login: LastLogin | None) -> datetime | None:
    """Return the last login with the current password of *device*; None if there was none yet."""
    return login.current_at if login is not None and login.used_password_of(device) else None


def _overlap(device: BaseDevice, login: LastLogin | None, now: datetime) -> Overlap | None:
    until = device.previous_valid_until
    if not device.has_overlap():
        return None
    used = used_at(device, login)
    return Overlap(
        until=None if until == UNTIL_USED else until,
        is_new_used=used is not None,
        new_used_at=used,
        old_used_at=login.previous_at if login else None,
    )


def _state(device: BaseDevice, login: LastLogin | None, overlap: Overlap | None, now: datetime) -> str:
    if not device.mqtt_password_hash:
        if device.api_key is not None:
            return "key"
        return "revoked" if device.credentials_changed_at is not None else "none"
    expires = device.password_expires_at
    if expires is not None and expires <= now:
        return "expired"
    if overlap is not None:
        return "two"
    if expires is not None and expires - now <= SOON:
        return "ends"
    return "unused" if login is None and device.last_message_at is None else "valid"


def _bars(device: BaseDevice, overlap: Overlap | None, now: datetime) -> Bars:
    """Return the bars: the current password since its change, and above all the one before it during an overlap."""
    start = min(device.credentials_changed_at or device.created_at, now)
    ends = [moment for moment in (device.password_expires_at, overlap.until if overlap else None) if moment]
    length = max((max([now, *ends]) - start), timedelta(hours=1))
    margin = min(length * MARGIN, LATEST - start - length)
    first, last = start - margin, start + length + margin

    def at(moment: datetime | None) -> float:
        place = (moment - first) / (last - first) * 100 if moment is not None else 100.0
        return min(100.0, max(0.0, place))

    def bar(label: str, css: str, begin: datetime, end: datetime | None) -> Bar:
        return Bar(label, css, f"{at(begin):.1f}%", f"{max(at(end) - at(begin), 0.5):.1f}%")

    drawn = [bar("In use", "bar-now", start, device.password_expires_at)]
    if overlap is not None:
        drawn = [bar("New", "bar-now", start, device.password_expires_at)]
        drawn.append(bar("Before it", "bar-old", first, overlap.until))
    written = "%Y-%m-%d" if last - first > timedelta(days=3) else "%Y-%m-%d %H:%M"
    return Bars(
        drawn,
        f"{at(now):.1f}%",
        f"{first:{written}}",
        f"{last:{written}}",
        _words(device, overlap, start),
    )


def _words(device: BaseDevice, overlap: Overlap | None, start: datetime) -> str:
    expires = device.password_expires_at
    found = f"The password of {in_utc(start)} is valid"
    found += f" until {in_utc(expires)}." if expires is not None else "."
    if overlap is None:
        return found
    end = f"until {in_utc(overlap.until)}" if overlap.until else "until the new one is used"
    return f"{found} The one before it is valid {end}."
