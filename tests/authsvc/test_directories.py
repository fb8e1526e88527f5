"""Directories of principals: a contract for all of them, then tests of each one and of the chain."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from django.db import connection
from django.utils import timezone

from authsvc.chain import Chain, configured
from authsvc.core import passwords
from authsvc.core.access import AmbiguousIdentity, Principal, Reason, Secret
from authsvc.core.memory import MemoryDirectory
from authsvc.directory import AccountDirectory
from authsvc.freshness import reader
from authsvc.models import Account, Denial
from authsvc.operation import denials
from devicehub.directory import DeviceDirectory
from devicehub.kinds.registry import Kind, registry
from devicehub.models import BaseDevice
from fleet.models import IrrigationValveDevice, WeatherStationDevice
from rig.cast import provision

pytestmark = pytest.mark.sqlite_first

HASH = passwords.hash_generated("the password of somebody")
# Valid usernames that look as if they had a special meaning.
AWKWARD = ["a" * 128, "a:b@c=d.e-f_g", "0", "-", "--", "=1", "null_", "NONE", "Guest", "1e3", "true"]
# Names that the authority refuses before a look-up; a directory must not find them either.
HOSTILE = [
    "",
    "' OR '1'='1",
    "x' UNION SELECT 1--",
    "%",
    "_tation",
    "%s",
    "?",
    "{0}",
    "*",
    "station\n",
    " station",
    "station ",
    "stаtion",  # A Cyrillic letter.
    "ſtation",  # Casefolds to the same name.
    "station\u200b",
    "\u202estation",
    "station" * 10_000,
]


def sql(statement, *parameters):
    """Change the database without the ORM."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.rowcount


class Devices:
    name = "devices"

    def __init__(self):
        self.directory = DeviceDirectory()

    def put(self, username, password_hash=HASH, active=True, client_id=None):
        WeatherStationDevice.objects.create(
            device_id=f"ID-{WeatherStationDevice.objects.count()}",
            mqtt_username=username,
            mqtt_password_hash=password_hash,
            is_active=active,
            mqtt_client_id=client_id,
        )

    def disable(self, username):
        sql(
            f"UPDATE {WeatherStationDevice._meta.db_table} SET is_active = %s WHERE mqtt_username = %s",
            False,
            username,
        )

    def remove(self, username):
        sql(f"DELETE FROM {WeatherStationDevice._meta.db_table} WHERE mqtt_username = %s", username)


class Accounts:
    name = "accounts"

    def __init__(self):
        self.directory = AccountDirectory()

    def put(self, username, password_hash=HASH, active=True, client_id=None):
        Account.objects.create(
            username=username,
            password_hash=password_hash,
            is_active=active,
            client_ids=[client_id] if client_id else [],
        )

    def disable(self, username):
        sql(f"UPDATE {Account._meta.db_table} SET is_active = %s WHERE username = %s", False, username)

    def remove(self, username):
        sql(f"DELETE FROM {Account._meta.db_table} WHERE username = %s", username)


class Memory:
    name = "memory"

    def __init__(self):
        self.principals = {}

    @property
    def directory(self):
        return MemoryDirectory(self.principals.values())

    def put(self, username, password_hash=HASH, active=True, client_id=None):
        self.principals[username] = Principal(
            key=f"account/{username}",
            username=username,
            secrets=(Secret(password_hash),) if password_hash else (),
            active=active,
            client_ids=(username, client_id) if client_id else (username,),
        )

    def disable(self, username):
        self.principals[username] = replace(self.principals[username], active=False)

    def remove(self, username):
        del self.principals[username]


@pytest.fixture
def look_up(loop):
    return lambda directory, username: loop.run(directory.lookup(username))


class TestEveryDirectory:
    """Guarantees of every directory to the authority."""

    @pytest.fixture(params=[Devices, Accounts, Memory], ids=lambda made: made.name)
    def house(self, request, transactional_db):
        return request.param()

    def test_an_empty_one_finds_nothing(self, house, look_up):
        assert look_up(house.directory, "station") is None

    def test_it_finds_its_principals(self, house, look_up):
        house.put("neighbour")
        house.put("station")

        found = look_up(house.directory, "station")

        assert found.username == "station"
        assert [secret.hash for secret in found.secrets] == [HASH]
        assert found.active is True
        assert found.superuser is False
        assert found == look_up(house.directory, "station")
        assert found.key != look_up(house.directory, "neighbour").key

    def test_a_disabled_one_is_found_and_not_active(self, house, look_up):
        house.put("station", active=False)

        assert look_up(house.directory, "station").active is False

    def test_without_a_hash_there_is_no_secret(self, house, look_up):
        """An empty text is not a hash, so no password may be compared with it."""
        house.put("station", password_hash="")

        assert look_up(house.directory, "station").secrets == ()

    def test_the_client_ids_are_the_username_and_the_stored_ones(self, house, look_up):
        house.put("station", client_id="radio-7")

        found = look_up(house.directory, "station")

        assert found.may_connect_as("station")
        assert found.may_connect_as("radio-7")
        for other in ("", "Station", "station ", "statio", "station1", "radio-77", "radio-", "*", "#", "+"):
            assert not found.may_connect_as(other)

    def test_names_are_compared_exactly(self, house, look_up):
        house.put("station")

        for name in ["STATION", "Station", "stationX", "tation", "station."]:
            assert look_up(house.directory, name) is None, name

    def test_a_hostile_name_is_not_found(self, house, look_up):
        house.put("station")

        for name in HOSTILE:
            assert look_up(house.directory, name) is None, ascii(name)[:40]
        assert look_up(house.directory, "station") is not None

    def test_an_awkward_name_is_a_name_like_any_other(self, house, look_up):
        for name in AWKWARD:
            house.put(name)

        for name in AWKWARD:
            assert look_up(house.directory, name).username == name

    def test_a_change_is_seen_by_the_next_question(self, house, look_up):
        house.put("station")
        assert look_up(house.directory, "station").active

        house.disable("station")
        assert not look_up(house.directory, "station").active

        house.remove("station")
        assert look_up(house.directory, "station") is None

    def test_no_hash_shows_in_a_repr(self, house, look_up):
        house.put("station")

        found = look_up(house.directory, "station")

        for shown in (repr(found), repr(found.secrets), str(found), f"{found}"):
            assert HASH not in shown
            assert "SSHA" not in shown


class TestDevices:
    def test_a_device_of_every_registered_kind_is_a_principal(self, transactional_db, look_up):
        directory = DeviceDirectory()
        cast = {kind: provision(f"D-{kind.slug}", kind.slug) for kind in registry}
        assert len(cast) >= 2

        for kind, who in cast.items():
            found = look_up(directory, who.username)

            assert found.key == f"{kind.slug}/{who.device.device_id}"
            assert found.attributes == {
                "type": kind.slug,
                "device_id": who.device.device_id,
                "prefix": "things",
            }
            assert {grant.filter for grant in found.grants} == {
                f"things/{kind.slug}/{who.device.device_id}/{about}"
                for about in ("data", "status", "reply", "cmd")
            }
            assert all(grant.allow for grant in found.grants)

    def test_a_kind_that_is_registered_later_is_found(self, transactional_db, look_up, bare_kind):
        directory = DeviceDirectory()
        assert look_up(directory, "gauge-user") is None

        bare_kind("bound")

        assert look_up(directory, "gauge-user").key == "gauge/G1"
        registry.unregister("gauge")
        assert look_up(directory, "gauge-user") is None

    def test_a_lookup_is_one_statement(self, transactional_db, look_up, monkeypatch):
        station, valve = provision("S1"), provision("V1", "irrigationvalve")
        statements = []
        fetch = reader.fetch

        async def counted(statement, parameters=()):
            statements.append((statement, list(parameters)))
            return await fetch(statement, parameters)

        monkeypatch.setattr(reader, "fetch", counted)
        directory = DeviceDirectory()

        for username in (station.username, valve.username, "stranger"):
            statements.clear()
            look_up(directory, username)
            ((statement, parameters),) = statements
            assert ";" not in statement
            assert username not in statement
            assert set(parameters) == {username}

    def test_only_the_documented_columns_are_needed(self, transactional_db, look_up, bare_kind):
        """A table filled by other programs may have only the columns of a login."""
        bare_kind("bound")

        found = look_up(DeviceDirectory(), "gauge-user")

        assert [secret.hash for secret in found.secrets] == [HASH]
        assert found.active
        assert found.may_connect_as("G1")
        assert not found.may_connect_as("G2")

    def test_the_columns_are_of_the_documented_device(self):
        """So every type has them."""
        documented = {field.name for field in BaseDevice._meta.local_fields}

        assert {*BARE_COLUMNS} <= documented

    def test_client_ids_of_a_type_may_be_free(self, transactional_db, look_up, bare_kind):
        bare_kind("any")

        found = look_up(DeviceDirectory(), "gauge-user")

        assert found.may_connect_as("whatever it likes")

    def test_a_free_type_keeps_the_binding_of_others(self, transactional_db, look_up, bare_kind):
        bare_kind("any")
        WeatherStationDevice.objects.create(device_id="S1", mqtt_username="station")

        assert not look_up(DeviceDirectory(), "station").may_connect_as("whatever it likes")

    def test_an_asterisk_in_a_devices_client_id_is_an_asterisk(self, transactional_db, look_up):
        """Only entries of an account may be prefixes (design 4): a device has one more client id, not all."""
        station = provision("S1", mqtt_client_id="gateway-*")

        found = look_up(DeviceDirectory(), station.username)

        assert not found.may_connect_as("gateway-of-somebody-else")

    def test_a_device_without_username_is_not_found(self, transactional_db, look_up):
        WeatherStationDevice.objects.create(device_id="S1")
        sql(
            f"INSERT INTO {Account._meta.db_table} "
            "(username, password_hash, previous_password_hash, is_active, is_superuser, client_ids, created_at) "
            "VALUES (%s, %s, '', %s, %s, %s, %s)",
            "account",
            HASH,
            True,
            False,
            "[]",
            timezone.now(),
        )

        for username in ("", "None", "null", "S1"):
            assert look_up(DeviceDirectory(), username) is None

    def test_a_previous_password_needs_an_expiry(self, transactional_db, look_up):
        """Without it the password would be valid for ever."""
        WeatherStationDevice.objects.create(
            device_id="S1", mqtt_username="station", mqtt_password_hash="", previous_password_hash=HASH
        )

        assert look_up(DeviceDirectory(), "station").secrets == ()


BARE_COLUMNS = (
    "device_id",
    "mqtt_username",
    "mqtt_password_hash",
    "password_expires_at",
    "previous_password_hash",
    "previous_valid_until",
    "credentials_changed_at",
    "mqtt_client_id",
    "is_active",
    "api_key",
)


@pytest.fixture
def bare_kind(transactional_db):
    """Return a function that registers a kind with only the columns of a login, and one device."""

    table = SimpleNamespace(db_table="bare_gauge", verbose_name="Gauge", app_label="fleet")
    model = type("GaugeDevice", (), {"_meta": table})

    def make(client_id):
        registry.register(Kind("gauge", model, model, client_id=client_id))

    columns = ", ".join(f"{name} {_TYPES.get(name, 'text')}" for name in BARE_COLUMNS)
    sql(f"CREATE TABLE bare_gauge ({columns})")
    sql(
        "INSERT INTO bare_gauge (device_id, mqtt_username, mqtt_password_hash, is_active) VALUES (%s, %s, %s, %s)",
        "G1",
        "gauge-user",
        HASH,
        True,
    )
    yield make
    registry.unregister("gauge")
    sql("DROP TABLE bare_gauge")


_TYPES = {
    "is_active": "boolean",
    "password_expires_at": "timestamp with time zone",
    "previous_valid_until": "timestamp with time zone",
    "credentials_changed_at": "timestamp with time zone",
}


class TestAccounts:
    def test_a_superuser_is_one(self, transactional_db, look_up):
        Account.objects.create(username="root", password_hash=HASH, is_superuser=True)

        found = look_up(AccountDirectory(), "root")

        assert found.superuser is True
        assert found.key == "account/root"
        assert found.grants == ()

    def test_client_ids_may_be_prefixes(self, transactional_db, look_up):
        Account.objects.create(username="ingest", password_hash=HASH, client_ids=["ingest-*", "backup"])

        found = look_up(AccountDirectory(), "ingest")

        for allowed in ("ingest", "backup", "ingest-", "ingest-1", "ingest-a/b"):
            assert found.may_connect_as(allowed)
        for refused in ("", "*", "Ingest-1", "backup-1", "ingest1", "x-ingest-1"):
            assert not found.may_connect_as(refused)

    @pytest.mark.parametrize("client_ids", ["ingest-*", "*", {"ingest-*": 1}, [None], [7]], ids=ascii)
    def test_an_invalid_list_of_client_ids_keeps_the_binding(self, ask, entrance, station, client_ids):
        """The admin accepts any JSON here: a text is not a list of its letters, the last of which is `*`."""
        account = Account(username="ingest", client_ids=client_ids)
        password = account.generate_password()
        account.save()

        reply = ask("go-auth/user", username="ingest", password=password, clientid=station.username)

        assert reply.status_code in (403, 503)


class TestTwice:
    """A username of two principals is refused, whatever the cause."""

    def test_in_memory(self, look_up):
        directory = MemoryDirectory([Principal("a/1", "twin"), Principal("a/2", "twin")])

        with pytest.raises(AmbiguousIdentity):
            look_up(directory, "twin")

    def test_two_device_types(self, transactional_db, look_up):
        WeatherStationDevice.objects.create(device_id="S1", mqtt_username="twin", mqtt_password_hash=HASH)
        IrrigationValveDevice.objects.create(device_id="V1", mqtt_username="twin", mqtt_password_hash=HASH)

        with pytest.raises(AmbiguousIdentity):
            look_up(DeviceDirectory(), "twin")

    def test_a_device_and_an_account(self, transactional_db, look_up):
        WeatherStationDevice.objects.create(device_id="S1", mqtt_username="twin", mqtt_password_hash=HASH)
        Account.objects.create(username="twin", password_hash=HASH)

        with pytest.raises(AmbiguousIdentity):
            look_up(configured(), "twin")

    @pytest.mark.parametrize("order", [1, -1])
    def test_in_two_directories_of_a_chain(self, look_up, order):
        """It also is if one of the two is disabled, because the client could be either."""
        one = MemoryDirectory([Principal("a/1", "twin"), Principal("a/3", "single")])
        other = MemoryDirectory([Principal("b/1", "twin", active=False)])
        chain = Chain([one, other][::order])

        with pytest.raises(AmbiguousIdentity):
            look_up(chain, "twin")
        assert look_up(chain, "single").key == "a/3"
        assert look_up(chain, "stranger") is None

    def test_a_fault_of_one_directory_is_a_fault_of_the_chain(self, look_up):
        class Broken:
            async def lookup(self, username):
                raise OSError("away")

        with pytest.raises(OSError, match="away"):
            look_up(Chain([MemoryDirectory([Principal("a/1", "single")]), Broken()]), "single")

    @pytest.mark.parametrize("by", ["two types", "device and account", "account by SQL"])
    def test_is_denied_on_every_question(self, ask, entrance, station, by):
        """Both have a right password. The station is allowed before, and again once the twin is deleted."""
        good = {"username": station.username, "clientid": station.username}
        question = {"acc": 2, "topic": station.topic("data")}
        if by == "two types":
            sql(
                f"UPDATE {IrrigationValveDevice._meta.db_table} SET mqtt_username = %s WHERE id = %s",
                station.username,
                provision("V1", "irrigationvalve").device.pk,
            )
        elif by == "device and account":
            Account.objects.create(username=station.username, password_hash=HASH)
        else:
            Account.objects.create(username="other", password_hash=HASH)
            sql(f"UPDATE {Account._meta.db_table} SET username = %s", station.username)

        for password in (station.password, "the password of somebody"):
            assert ask("go-auth/user", password=password, **good).status_code == 403
        assert ask("go-auth/acl", **good, **question).status_code == 403
        assert ask("go-auth/superuser", username=station.username).status_code == 403
        denials.flush()
        assert set(Denial.objects.values_list("reason", flat=True)) == {Reason.AMBIGUOUS_IDENTITY}

        sql(f"DELETE FROM {Account._meta.db_table}")
        sql(f"DELETE FROM {IrrigationValveDevice._meta.db_table}")
        assert ask("go-auth/user", password=station.password, **good).status_code == 200

    def test_without_binding_client_ids_are_not_claimed(self, ask, settings, station):
        """`AUTHSVC_CLIENT_ID=any` lifts the binding: a foreign client id is then allowed."""
        provision("V1", "irrigationvalve")
        settings.AUTHSVC_CLIENT_ID = "any"

        reply = ask("go-auth/user", username=station.username, password=station.password, clientid="V1")

        assert reply.status_code == 200

    def test_a_client_id_of_two_devices_is_refused(self, ask, entrance, station):
        """A client that connects under a foreign client id takes over its session (design 4: a deny for two claims)."""
        valve = provision("V1", "irrigationvalve")
        sql(
            f"UPDATE {IrrigationValveDevice._meta.db_table} SET device_id = %s WHERE id = %s",
            station.device.device_id,
            valve.device.pk,
        )

        replies = [
            ask(
                "go-auth/user",
                username=who.username,
                password=who.password,
                clientid=station.device.device_id,
            )
            for who in (station, valve)
        ]

        assert [reply.status_code for reply in replies] == [403, 403]
