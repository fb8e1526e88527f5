"""The kinds of devices that exist. Directory, topics, ingest, admin and pages ask here, never for types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from authsvc.core.access import ACCOUNT
from devicehub.errors import DevicehubError
from devicehub.kinds.declare import DEFAULT_TEMPLATE, Command, DeviceType, Hooks, Reading, StateField

# First levels of keys that mean something else than a declared type.
RESERVED = {ACCOUNT: "service accounts, whose grants its devices would have", "lwm2m": "LwM2M devices"}


class DuplicateKind(Exception):
    """Two kinds of devices have one slug, or a type took a reserved one."""


class UnknownKey(DevicehubError):
    """A text is not the key of a device of any kind, such as `weatherstation/STATION-001`."""


@dataclass(frozen=True, eq=False)  # compared by identity: a kind is a key of caches that every question reads
class Kind:
    """One kind of device: its *slug* in topics and keys, its models, and what its devices say and understand.

    *readings*, *commands* and *state_fields* are declarations by name, *hooks* a class of which each message gets
    an instance, and *keep* says how long what is kept, by the options of `Meta`. *client_id* is `bound` or `any`.
    *reading_model* is where readings go. create_models() fills all of this from *device_type*.
    """

    slug: str
    device_model: type[Any]
    message_model: type[Any]
    reading_model: type[Any]
    device_type: type[DeviceType]
    readings: Mapping[str, Reading] = field(default_factory=dict, repr=False)
    commands: Mapping[str, Command] = field(default_factory=dict, repr=False)
    state_fields: Mapping[str, StateField] = field(default_factory=dict, repr=False)
    hooks: type[Hooks] = Hooks
    keep: Mapping[str, Any] = field(default_factory=dict, repr=False)
    topic_template: str = DEFAULT_TEMPLATE
    client_id: str = "bound"
    heartbeat_interval: float = 300

    @property
    def sender(self) -> type[Any]:
        """The sender of this kind's signals."""
        return self.device_type

    @property
    def name(self) -> str:
        """What people read: "Weather Station"."""
        return str(self.device_model._meta.verbose_name)

    def key(self, device_id: str) -> str:
        """Names a device across tables: `weatherstation/STATION-001`."""
        return f"{self.slug}/{device_id}"


class Registry:
    """Kinds by slug."""

    def __init__(self) -> None:
        self._kinds: dict[str, Kind] = {}
        self.version = 0  # raised by every registration: what was derived from the kinds is then made anew

    def refuse_taken(self, device_type: type[DeviceType], module: str) -> None:
        """Raise DuplicateKind when models of *device_type* in *module* would have a slug that is taken."""
        slug, wanted = device_type.get_slug(), _described(device_type, module)
        if slug in RESERVED:
            raise DuplicateKind(
                f"{wanted} would be called {slug!r}, which is reserved for {RESERVED[slug]}; "
                "rename the class or override get_slug()"
            )
        known = self._kinds.get(slug)
        if known is not None:
            other = _described(known.device_type, known.device_model.__module__)
            raise DuplicateKind(f"Two device types are called {slug!r}: {other} and {wanted}")

    def register(self, kind: Kind) -> None:
        """Add *kind*. Raises DuplicateKind, which names both, for a slug that another type has."""
        self.refuse_taken(kind.device_type, kind.device_model.__module__)
        self._kinds[kind.slug] = kind
        self.version += 1

    def unregister(self, slug: str) -> None:
        """Forget a kind again; for tests that declare types of their own."""
        if self._kinds.pop(slug, None) is not None:
            self.version += 1

    def get(self, slug: str) -> Kind | None:
        return self._kinds.get(slug)

    def resolve(self, key: str) -> tuple[Kind, str]:
        """Return the kind and the device id that *key* names; there may be no such device. Raises UnknownKey.

        >>> registry.resolve("toaster/T-1")
        Traceback (most recent call last):
        devicehub.kinds.registry.UnknownKey: there is no device type 'toaster'
        """
        slug, _, device_id = key.partition("/")
        kind = self._kinds.get(slug)
        if kind is None:
            raise UnknownKey(f"there is no device type {slug!r}")
        if not device_id:
            raise UnknownKey(f"{key!r} names a device type and no device")
        return kind, device_id

    def __iter__(self) -> Iterator[Kind]:
        return iter(tuple(self._kinds.values()))

    def __len__(self) -> int:
        return len(self._kinds)

    def of(self, device: Any) -> Kind | None:
        """Return the kind of *device*, an instance or a class of a device model or of a proxy of one; or None."""
        model = device if isinstance(device, type) else type(device)
        return next((kind for kind in self if issubclass(model, kind.device_model)), None)


def _described(device_type: type[DeviceType], module: str) -> str:
    return f"{device_type.__module__}.{device_type.__qualname__} (models in {module})"


registry = Registry()
