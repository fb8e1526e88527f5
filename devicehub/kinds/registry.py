"""The registry of kinds of devices. Directory, topics, ingest, admin and pages use it and never a device type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from authsvc.core.access import ACCOUNT
from devicehub.errors import DevicehubError
from devicehub.kinds import resources
from devicehub.kinds.declare import DEFAULT_TEMPLATE, Command, DeviceType, Hooks, Reading, StateField
from devicehub.kinds.identifiers import is_slug
from devicehub.kinds.pages import Pages
from devicehub.kinds.resources import Resources
from devicehub.kinds.store import Inbox, Narrow, Tables

# First levels of keys that mean something else than a declared type.
RESERVED = {ACCOUNT: "service accounts, whose grants its devices would have", "lwm2m": "LwM2M devices"}
OWNERS = {"lwm2m": "devicehub.lwm2m."}  # The modules whose kind may have a reserved slug.


class DuplicateKind(DevicehubError):
    """Two kinds of devices have one slug, or a type took a reserved one."""


class InvalidSlug(DevicehubError, ValueError):
    """A text cannot be the slug of a kind: keys and topics of its devices would name something else."""


class UnknownKey(DevicehubError):
    """A text is not the key of a device of any kind, such as `weatherstation/STATION-001`."""


@dataclass(frozen=True, eq=False)  # Compared by identity: a kind is a key of caches that every request reads.
class Kind:
    """One kind of device: its *slug* in topics and keys, its models, its readings, states and commands.

    *device_model* and *message_model* are concrete models of BaseDevice and BaseMessage, the latter with a foreign
    key `device`. *reading_model* has a column for each reading; a kind without one keeps values in its *store*, or
    keeps none. A kind with an *inbox* has payload forms of its own. *device_type* is the declaration from which
    create_models() made the kind, if it did.
    *readings*, *commands* and *state_fields* are declarations by name, *hooks* is a class of which each message
    gets an instance, *keep* holds retention periods by the options of `Meta`, and *client_id* is `bound` or `any`.
    """

    slug: str
    device_model: type[Any]
    message_model: type[Any]
    reading_model: Any = None
    device_type: type[DeviceType] | None = None
    readings: Mapping[str, Reading] = field(default_factory=dict, repr=False)
    commands: Mapping[str, Command] = field(default_factory=dict, repr=False)
    state_fields: Mapping[str, StateField] = field(default_factory=dict, repr=False)
    hooks: type[Hooks] = Hooks
    store: Tables | None = None
    inbox: Inbox | None = None
    keep: Mapping[str, Any] = field(default_factory=dict, repr=False)
    pages: Pages = field(default_factory=Pages, repr=False)
    topic_template: str = DEFAULT_TEMPLATE
    client_id: str = "bound"
    heartbeat_interval: float = 300

    def __post_init__(self) -> None:
        for declarations in (self.readings, self.commands, self.state_fields, self.columns):
            for name, declared in declarations.items():
                declared.name = name

    @cached_property
    def resources(self) -> Resources | None:
        """The LwM2M resources that its readings are; None if no reading names one, as with most kinds."""
        return resources.of(self.readings)

    @property
    def sender(self) -> type[Any]:
        """The sender of this kind's signals: its declaration, or else its device model."""
        return self.device_type or self.device_model

    @property
    def value_models(self) -> tuple[type[Any], ...]:
        """The models whose rows hold values of its devices."""
        if self.reading_model is not None:
            return (self.reading_model,)
        return tuple(self.store.models) if self.store is not None else ()

    @property
    def narrow(self) -> Narrow | None:
        """The narrow table of its values, if it has one and no *reading_model*."""
        found: Narrow | None = getattr(self.store, "narrow", None)
        return found if self.reading_model is None else None

    @property
    def history_model(self) -> Any:
        """The model whose rows are rolled up and may be divided into partitions; None without one."""
        if self.reading_model is not None:
            return self.reading_model
        return None if self.narrow is None else self.narrow.model

    @property
    def current_models(self) -> tuple[type[Any], ...]:
        """The models of its store whose rows are changed in place."""
        return tuple(getattr(self.store, "current", ()))

    def described(self, name: str) -> Reading:
        """Return the declaration of a name in its narrow table, or one that knows nothing but the name."""
        if name in self.columns:
            return self.columns[name]
        describe = getattr(self.store, "describe", None)
        reading: Reading = (None if describe is None else describe(name)) or Reading(verbose_name=name)
        reading.name = name
        return reading

    def units(self, device: int, names: Sequence[str]) -> dict[str, str]:
        """Return the unit of each of *names* of *device* (a primary key); one without a unit has an empty text."""
        of_store = getattr(self.store, "units", None)
        if self.reading_model is None and of_store is not None:
            found: Mapping[str, str] = of_store(device, names)
            return {name: found.get(name, "") for name in names}
        declared = self.readings if self.reading_model is not None else self.columns
        return {name: (declared[name] if name in declared else self.described(name)).unit for name in names}

    def weight(self, device: int, names: Sequence[str]) -> int:
        """Return the bytes of the latest values of *names* of *device* (a primary key), or 0 for a bounded number."""
        of_store = getattr(self.store, "weight", None)
        return of_store(device, names) if of_store is not None else 0

    def counted_as(self, model: type[Any]) -> str:
        """Return the name under which rows of *model*, one of its store, are counted."""
        names: Mapping[type[Any], str] = getattr(self.store, "counted", {})
        return names.get(model, "readings")

    @property
    def columns(self) -> Mapping[str, Reading]:
        """The values that tables of its devices show, by name."""
        return self.readings if self.pages.columns is None else self.pages.columns

    @property
    def name(self) -> str:
        """The name of the kind on pages: "Weather Station"."""
        return str(self.device_model._meta.verbose_name)

    def key(self, device_id: str) -> str:
        """Return the key that names a device in all tables: `weatherstation/STATION-001`."""
        return f"{self.slug}/{device_id}"


def describe(declared: type[Any], module: str) -> str:
    """Return a kind by the class that declares it and the module of its models, for messages."""
    return f"{declared.__module__}.{declared.__qualname__} (models in {module})"


class Registry:
    """Kinds by slug, and the hooks that a project chose for a kind of another app."""

    def __init__(self) -> None:
        self._kinds: dict[str, Kind] = {}
        self._hooks: dict[Kind, type[Hooks]] = {}
        # Each registration raises it, which invalidates the caches that were derived from kinds.
        self.version = 0

    def refuse_taken(self, slug: str, described: str, module: str = "") -> None:
        """Raise DuplicateKind if *slug* is taken, or InvalidSlug; *described* names the new kind in the message.

        A reserved slug is taken, but for the *module* that it is reserved for.
        """
        if not is_slug(slug):
            raise InvalidSlug(
                f"{described} would be called {slug!r}, which is not one topic level of 1-100 characters"
                " without a space"
            )
        if slug in RESERVED and not module.startswith(OWNERS.get(slug, " ")):
            raise DuplicateKind(
                f"{described} would be called {slug!r}, which is reserved for {RESERVED[slug]}; "
                "rename the class or override get_slug()"
            )
        other = self._kinds.get(slug)
        if other is not None:
            first = describe(other.sender, other.device_model.__module__)
            raise DuplicateKind(f"Two device types are called {slug!r}: {first} and {described}")

    def register(self, kind: Kind) -> None:
        """Add *kind*. Raise DuplicateKind, which names both kinds, if another kind has its slug, or InvalidSlug."""
        module = kind.device_model.__module__
        self.refuse_taken(kind.slug, describe(kind.sender, module), module)
        self._kinds[kind.slug] = kind
        self.version += 1

    def unregister(self, slug: str) -> None:
        """Remove the kind of *slug*, if there is one; for tests that declare types of their own."""
        if self._kinds.pop(slug, None) is not None:
            self.version += 1

    def use_hooks(self, kind: Kind, hooks: type[Hooks]) -> None:
        """Have the methods of *hooks* called for the devices of *kind*, in place of those before."""
        self._hooks[kind] = hooks

    def hooks_of(self, kind: Kind) -> type[Hooks]:
        """Return the hooks of *kind*: those that were chosen for it, or else its own."""
        return self._hooks.get(kind, kind.hooks)

    def get(self, slug: str) -> Kind | None:
        """Return the kind of *slug*, or None."""
        return self._kinds.get(slug)

    def resolve(self, key: str) -> tuple[Kind, str]:
        """Return the kind and the device id that *key* names; there may be no such device. Raise UnknownKey.

        >>> registry.resolve("toaster/T-1")
        Traceback (most recent call last):
        devicehub.kinds.registry.UnknownKey: there is no device type 'toaster'
        """
        slug, _, device_id = key.partition("/")
        kind = self._kinds.get(slug)
        if kind is None:
            raise UnknownKey(f"there is no device type {slug!r}")
        if not device_id:
            raise UnknownKey(f"{key!r} names a device type without a device id")
        return kind, device_id

    def __iter__(self) -> Iterator[Kind]:
        return iter(tuple(self._kinds.values()))

    def __len__(self) -> int:
        return len(self._kinds)

    def of(self, device: Any) -> Kind | None:
        """Return the kind of *device*, an instance or a class of a device model or of its proxy; or None."""
        model = device if isinstance(device, type) else type(device)
        return next((kind for kind in self if issubclass(model, kind.device_model)), None)


registry = Registry()
