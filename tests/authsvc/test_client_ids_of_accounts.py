"""The client ids of a service account stay its own: no device can take one and block the service."""

import psycopg
import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from authsvc.core import passwords
from authsvc.core.access import Reason
from authsvc.directory import SELECT_CLAIMS, AccountDirectory
from authsvc.freshness import reader
from authsvc.freshness.triggers import CHANNEL
from authsvc.models import Account, ClientIdTaken, Denial
from authsvc.operation import denials
from devicehub import provisioning
from devicehub.checks import check_identities
from devicehub.kinds.registry import registry
from devicehub.provisioning import IdentityTaken, credentials_file
from devicehub.simulation import logins
from fleet.models import IrrigationValveDevice, WeatherStationDevice
from rig.credential_pages import nonce_of
from rig.hub import database_url

pytestmark = pytest.mark.sqlite_first

Stations = WeatherStationDevice.objects
PASSWORD_HASH = passwords.hash_generated("a generated password")
# The username, a worker, a sender, an entry.
NAMES = ("ingest", "ingest-1", "ingest-commands-host-7", "backup")
STATIONS, ACCOUNTS = WeatherStationDevice._meta.db_table, Account._meta.db_table
OK, DENIED = 200, 403
MESSAGE = "{} is a client id of the account ingest|The account ingest has that name already"


def sql(statement, *parameters):
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)


@pytest.fixture
def kind():
    return registry.get("weatherstation")


@pytest.fixture
def account(db):
    return Account.objects.create(username="ingest", client_ids=["ingest-*", "backup"])


# --- A device that would get one.


def rename(**names):
    def change(device):
        for name, value in names.items():
            setattr(device, name, value)
        device.save()

    return change


WAYS = {
    "create": lambda name: Stations.create(device_id=name),
    "a username": lambda name: Stations.create(device_id="S1", mqtt_username=name),
    "a client id": lambda name: Stations.create(device_id="S1", mqtt_client_id=name),
    "another kind": lambda name: IrrigationValveDevice.objects.create(device_id=name),
    "save": lambda name: WeatherStationDevice(device_id=name).save(),
    "save again": lambda name: rename(mqtt_client_id=name)(Stations.create(device_id="S1")),
    "save one field": lambda name: (
        device := Stations.create(device_id="S1"),
        setattr(device, "mqtt_username", name),
        device.save(update_fields=["mqtt_username"]),
    ),
    "get_or_create": lambda name: Stations.get_or_create(device_id=name),
    "bulk_create": lambda name: Stations.bulk_create(
        [WeatherStationDevice(device_id="S1"), WeatherStationDevice(device_id=name)]
    ),
    "update": lambda name: (Stations.create(device_id="S1"), Stations.update(mqtt_client_id=name)),
    "bulk_update": lambda name: (
        device := Stations.create(device_id="S1"),
        setattr(device, "mqtt_client_id", name),
        Stations.bulk_update([device], ["mqtt_client_id"]),
    ),
    "provisioning": lambda name: provisioning.create(registry.get("weatherstation"), name),
    "provisioning, a client id": lambda name: provisioning.create(
        registry.get("weatherstation"), "S1", mqtt_client_id=name
    ),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_device_gets_no_client_id_of_an_account(account, way):
    for name in NAMES:
        with pytest.raises(IdentityTaken, match=MESSAGE.format(name)), transaction.atomic():
            way(name)

        assert not Stations.exists()
        assert not IrrigationValveDevice.objects.exists()


@pytest.mark.sqlite_only
def test_commands_and_files_refuse_it_too(account, kind, tmp_path):
    with pytest.raises(CommandError, match="ingest-001 is a client id of the account ingest"):
        call_command(
            "provision_devices", "weatherstation", count=1, prefix="ingest-", output=str(tmp_path / "out")
        )
    assert not (tmp_path / "out").exists()  # So the same name can be used again.
    with pytest.raises(IdentityTaken):
        logins.issue_logins(kind, "ingest-", 1)
    rows = credentials_file.read(
        f"username,hash,device_id,client_id\ningest-1,{PASSWORD_HASH},S1,\nu2,{PASSWORD_HASH},ingest-2,\n"
        f"u3,{PASSWORD_HASH},S3,ingest-3\nu4,{PASSWORD_HASH},S4,backup\nu5,{PASSWORD_HASH},S5,ingest5\n"
    ).rows
    credentials_file.judge(rows, kind)
    assert ["client id of the account" in row.problem for row in rows] == [True] * 4 + [False]


@pytest.mark.sqlite_only
def test_the_admin_refuses_it_in_words(account, admin_client):
    device = Stations.create(device_id="S1")
    page = reverse("admin:fleet_weatherstationdevice_change", args=[device.pk])
    form = {"status": "offline", "mqtt_client_id": "ingest-1", "metadata": "{}", "is_active": "on"}

    answer = admin_client.post(page, form)

    assert answer.status_code == 200
    assert "is a client id of the account ingest" in answer.content.decode()
    page = reverse("admin:fleet_weatherstationdevice_add")
    nonce = nonce_of(admin_client.get(page).content.decode())
    answer = admin_client.post(page, form | {"device_id": "ingest-7", "nonce": nonce})
    assert "is a client id of the account ingest" in answer.content.decode()


def test_similar_names_are_free(account):
    for name in ("ingest1", "Ingest-1", "x-ingest-1", "INGEST", "backup-1", "ingest:1"):
        Stations.create(device_id=name, mqtt_username=name, mqtt_client_id=name)


def test_a_device_that_has_one_already_can_still_be_changed(account, admin_client):
    """An operator must be able to disable and to rename it."""
    device = Stations.create(device_id="S1")
    sql(f"UPDATE {STATIONS} SET mqtt_client_id = 'ingest-1'")
    device.refresh_from_db()

    device.name = "North"
    device.save()
    page = reverse("admin:fleet_weatherstationdevice_change", args=[device.pk])
    form = {"name": "South", "mqtt_client_id": "ingest-1", "metadata": "{}"}
    assert admin_client.post(page, form).status_code == 302
    provisioning.disable(device)
    assert Stations.values_list("name", "is_active").get() == ("South", False)
    Stations.update(mqtt_client_id="S1-radio")


# --- An account that would get one.

ADDED = {
    "create": lambda account, entry: Account.objects.create(username="other", client_ids=[entry]),
    "save": lambda account, entry: (setattr(account, "client_ids", ["ingest-*", entry]), account.save()),
    "save one field": lambda account, entry: (
        setattr(account, "client_ids", [entry]),
        account.save(update_fields=["client_ids"]),
    ),
    "update": lambda account, entry: Account.objects.update(client_ids=[entry]),
    "bulk_update": lambda account, entry: (
        setattr(account, "client_ids", [entry]),
        Account.objects.bulk_update([account], ["client_ids"]),
    ),
    "bulk_create": lambda account, entry: Account.objects.bulk_create(
        [Account(username="other", client_ids=[entry])]
    ),
    "a form": lambda account, entry: (setattr(account, "client_ids", [entry]), account.full_clean()),
}


@pytest.mark.parametrize("add", ADDED.values(), ids=ADDED)
def test_an_account_gets_no_client_id_of_a_device(account, add):
    Stations.create(
        device_id="STATION-001",
        mqtt_username="fleet-weatherstationdevice-STATION-001",
        mqtt_client_id="radio-7",
    )

    for entry in ("radio-*", "radio-7", "STAT*", "fleet-weather*"):
        refused = pytest.raises(ValidationError, match="weatherstation/STATION-001 has the name")
        with refused, transaction.atomic():
            add(account, entry)

        assert list(Account.objects.values_list("client_ids", flat=True)) == [["ingest-*", "backup"]]


@pytest.mark.sqlite_only
def test_commands_and_the_admin_refuse_it_too(account, admin_client):
    Stations.create(device_id="other-1")
    with pytest.raises(CommandError, match="weatherstation/other-1 has the name other-1"):
        call_command("create_account", "other", "--ingest")
    with pytest.raises(CommandError, match="weatherstation/other-1 has the name other-1"):
        call_command("create_account", "another", "--client-id", "other-*")
    answer = admin_client.post(
        reverse("admin:authsvc_account_change", args=[account.pk]),
        {"client_ids": "other-*", "is_active": "on"},
    )
    assert answer.status_code == 200
    assert "weatherstation/other-1 has the name other-1" in answer.content.decode()


def test_client_ids_similar_to_a_device_are_free(account):
    """The comparison is exact: case-sensitive, and without the wildcards of LIKE."""
    Stations.create(device_id="radio-7")

    for entry in ("Radio-*", "radio_*", "radi%*", "RADIO-7", "r_dio-7"):
        Account.objects.update(client_ids=[entry])


def test_accounts_may_share_and_change_the_rest(account):
    """A device written by SQL must not prevent an operator from rotating or disabling the account."""
    Account.objects.create(username="other", client_ids=["ingest-*", "backup"])
    Stations.create(device_id="S1")
    sql(f"UPDATE {STATIONS} SET device_id = 'ingest-1'")

    provisioning.rotate_account(account, valid_until=None)
    Account.objects.update(is_active=False, client_ids=["ingest-*"])
    with pytest.raises(ClientIdTaken):
        Account.objects.update(client_ids=["ingest-*", "ingest-1"])


@pytest.mark.parametrize(
    "way", [Account.objects.create, lambda **fields: Account.objects.bulk_create([Account(**fields)])]
)
def test_a_single_star_is_refused(db, way):
    with pytest.raises(ValidationError, match="every client id"):
        way(username="all", client_ids=["*"])


def test_a_prefix_is_looked_up_in_indexes(account):
    """No statement scans a table, and each returns one row at most, also with a million devices."""
    with CaptureQueriesContext(connection) as captured:
        provisioning.refuse_claims(["radio-*", "other"])

    assert len(captured) == len(registry) * 3 * 2
    for query in captured:
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                cursor.execute("SET LOCAL enable_seqscan = off")
            cursor.execute(f"EXPLAIN {'QUERY PLAN ' if connection.vendor == 'sqlite' else ''}{query['sql']}")
            plan = " ".join(str(column) for row in cursor.fetchall() for column in row)
        assert "SEARCH" in plan or "Index" in plan
        assert "Seq Scan" not in plan
        assert "SCAN" not in plan


# --- Conflicts that are already stored.


@pytest.fixture
def login(ask):
    def one(who, password, client_id):
        return ask("go-auth/user", username=who, password=password, clientid=client_id).status_code

    return one


@pytest.fixture
def worker(transactional_db):
    account, password = provisioning.create_account("ingest", client_ids=["ingest-*", "backup"])
    return account, password


def test_the_device_is_refused_and_never_the_account(login, station, worker):
    sql(f"UPDATE {STATIONS} SET device_id = 'ingest-1', mqtt_client_id = 'backup'")

    for name in ("ingest-1", "backup"):
        assert login(station.username, station.password, name) == DENIED
        assert login("ingest", worker[1], name) == OK
    assert login("ingest", worker[1], "ingest") == OK
    denials.flush()
    assert set(Denial.objects.values_list("reason", flat=True)) == {Reason.AMBIGUOUS_CLIENT_ID}
    # It may connect under its other names.
    assert login(station.username, station.password, station.username) == OK


def test_a_prefix_added_by_sql_counts_with_the_next_question(login, station, worker):
    for _ in range(3):
        assert login(station.username, station.password, "STATION-001") == OK

    sql(f"UPDATE {ACCOUNTS} SET client_ids = %s", '["STATION-*"]')
    assert login(station.username, station.password, "STATION-001") == DENIED
    assert login("ingest", worker[1], "STATION-001") == OK

    sql(f"DELETE FROM {ACCOUNTS}")
    assert login(station.username, station.password, "STATION-001") == OK


@pytest.mark.sqlite_only
def test_a_single_star_by_sql_blocks_no_device(login, station, worker):
    """It lets the account use any client id, except those that others claim."""
    sql(f"UPDATE {ACCOUNTS} SET client_ids = %s", '["*"]')

    assert login(station.username, station.password, "STATION-001") == OK
    assert login("ingest", worker[1], "STATION-001") == DENIED
    assert login("ingest", worker[1], "anything") == OK


@pytest.mark.sqlite_only
def test_accounts_share_a_client_id_but_no_username(login, worker):
    _, password = provisioning.create_account("other", client_ids=["ingest-*", "backup", "other-*"])

    for client_id in ("ingest-1", "backup"):
        assert login("ingest", worker[1], client_id) == login("other", password, client_id) == OK
    sql(f"UPDATE {ACCOUNTS} SET client_ids = %s WHERE username = 'other'", '["ingest"]')
    assert login("other", password, "ingest") == DENIED
    assert login("ingest", worker[1], "ingest") == OK


def test_the_check_reports_it(account):
    device = Stations.create(device_id="S1")
    assert provisioning.shared_names() == []
    sql(f"UPDATE {STATIONS} SET mqtt_client_id = 'ingest-1' WHERE id = %s", device.pk)

    assert provisioning.shared_names() == [("ingest-1", ["account/ingest", "weatherstation/S1"])]
    [warning] = check_identities(databases=["default"])
    assert (warning.id, warning.msg) == (
        "devicehub.W007",
        "'ingest-1' names account/ingest and weatherstation/S1.",
    )


@pytest.mark.sqlite_only
@pytest.mark.parametrize("stored", ["[1e999]", "[" + "9" * 5000 + "]", '{"a": 1}', "null", '"ingest-*"'])
def test_an_unreadable_list_claims_nothing(login, station, worker, stored):
    sql(f"UPDATE {ACCOUNTS} SET client_ids = %s", stored)

    assert login(station.username, station.password, "STATION-001") == OK


def test_a_login_reads_the_accounts_with_client_ids_by_index(account):
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(
            f"EXPLAIN {'QUERY PLAN ' if connection.vendor == 'sqlite' else ''}{SELECT_CLAIMS}", ["ingest-1"]
        )
        plan = " ".join(str(column) for row in cursor.fetchall() for column in row)

    assert "authsvc_account_client_ids" in plan
    assert "Seq Scan" not in plan


@pytest.mark.sqlite_only
def test_claimants_are_read_by_one_statement(transactional_db, loop, monkeypatch, worker):
    statements, fetch = [], reader.fetch

    async def counted(statement, parameters=()):
        statements.append(statement)
        return await fetch(statement, parameters)

    monkeypatch.setattr(reader, "fetch", counted)

    assert loop.run(AccountDirectory().claimants("ingest-1")) == {"account/ingest"}
    assert loop.run(AccountDirectory().claimants("ingest")) == {"account/ingest"}
    assert loop.run(AccountDirectory().claimants("STATION-001")) == set()
    assert len(statements) == 3


@pytest.mark.postgresql_only
def test_a_change_of_an_account_clears_cached_devices(worker):
    """It does in every process: its client ids affect devices, which the notification cannot name."""
    with psycopg.connect(database_url().replace("postgres:", "postgresql:"), autocommit=True) as ours:
        ours.execute(f"LISTEN {CHANNEL}")
        sql(f"UPDATE {ACCOUNTS} SET client_ids = %s", '["STATION-*"]')

        assert [notice.payload for notice in ours.notifies(timeout=5, stop_after=1)] == ["*"]
