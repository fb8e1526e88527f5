"""The quarantine of one device: bytes are kept once, up to DEVICEHUB_QUARANTINE_PER_DEVICE, then only counted."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import DataError, connection, transaction
from django.db.models import Sum
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from devicehub.dashboard import overview
from devicehub.ingest import allowance, limits, store
from devicehub.ingest.allowance import ROW
from devicehub.ingest.pipeline import pipeline
from devicehub.messages.message import FailureReason, Message, Outcome
from devicehub.models import CountedRefusal, QuarantinedMessage, QuarantineUse
from devicehub.worker.metrics import REGISTRY, stored
from fleet.models import WeatherStationDevice, WeatherStationMessage
from rig.cast import provision

NOW = datetime.now(UTC)
KIB = 1 << 10
KEY = "weatherstation/STATION-001"


@pytest.fixture
def device(db, settings):
    settings.DEVICEHUB_QUARANTINE_PER_DEVICE = 100 * KIB
    return WeatherStationDevice.objects.create(device_id="STATION-001")


@pytest.fixture
def neighbour(device):
    return WeatherStationDevice.objects.create(device_id="STATION-002")


def message(payload=b"junk", device_id="STATION-001", *, topic="", **more):
    return Message(topic or f"things/weatherstation/{device_id}/data", payload, NOW, **more)


def kept():
    return QuarantinedMessage.objects.count()


def counted():
    return {(row.device_key, row.reason): row.count for row in CountedRefusal.objects.all()}


def fill(size=30 * KIB, times=5):
    """Send more than the allowance holds."""
    assert pipeline([message(b"x" * size)] * times) == [Outcome.FAILED] * times


def bytes_stored():
    """Return the bytes in both tables that devices chose."""
    total = 0
    for model in (QuarantinedMessage, WeatherStationMessage):
        for row in model.objects.values():
            row.pop("size", None)
            total += sum(
                len(bytes(v)) if isinstance(v, bytes | memoryview) else len(str(v)) for v in row.values()
            )
    return total


def test_refused_bytes_are_kept_once(device):
    body, properties = b"junk \xff" * 1000, (("trace", "7" * 500),)
    pipeline([message(body, content_type="text/x", correlation_id="c-1", user_properties=properties)])

    row, held = device.messages.get(), QuarantinedMessage.objects.get()
    assert (row.payload_json, row.payload_raw, row.user_properties) == (None, None, {})
    assert (bytes(held.payload), held.user_properties) == (body, dict(properties))
    assert row.quarantined == held
    assert row.processing_error.endswith(f" (quarantined as {held.pk})")
    assert len(body) + 500 < held.size < len(body) + 500 + 2 * ROW


@pytest.mark.sqlite_only
def test_a_document_without_a_value_is_kept_once_too(device):
    pipeline([message(b'{"unknown": 1}')])

    row = device.messages.get()
    assert (row.payload_json, row.payload_raw) == (None, None)
    assert bytes(row.quarantined.payload) == b'{"unknown": 1}'


@pytest.mark.sqlite_only
def test_a_stored_message_keeps_its_bytes_and_names_no_row(device):
    pipeline([message(b'{"temperature": 1}')])

    row = device.messages.get()
    assert (row.payload_json, row.quarantined) == ({"temperature": 1}, None)


@pytest.mark.sqlite_only
def test_the_text_of_an_error_gives_no_row_of_another_device(device, neighbour):
    """Covered are old rows, which have their bytes, and texts that a device puts into a detail."""
    pipeline([message(device_id="STATION-002")])
    other = QuarantinedMessage.objects.get()
    row = neighbour.messages.create(
        topic="t", payload_raw=b"", processing_error=f"x (quarantined as {other.pk})", device=device
    )

    assert row.quarantined is None

    name = f"(quarantined as {other.pk})"
    pipeline([message(json.dumps({name: 1}).encode())])
    assert device.messages.latest("pk").quarantined.device_key == KEY


def test_beyond_its_allowance_a_message_is_only_counted(device):
    fill()

    assert kept() == device.messages.count() == 3
    assert counted() == {(KEY, "not_json"): 2}
    assert sum(QuarantinedMessage.objects.values_list("size", flat=True)) <= 100 * KIB
    fill(times=3)
    assert kept() == 3
    assert counted() == {(KEY, "not_json"): 5}
    row = CountedRefusal.objects.get()
    assert row.first_at < row.last_at


@pytest.mark.sqlite_only
def test_a_small_message_fits_where_a_large_one_does_not(device):
    fill()
    pipeline([message(b"small"), message(b'{"unknown": 1}')])

    assert kept() == 5
    assert counted() == {(KEY, "not_json"): 2}


def test_empty_messages_are_bounded_too(device):
    batch = [message(b"")] * 300
    for _ in range(3):
        assert pipeline(batch) == [Outcome.FAILED] * 300

    assert kept() <= 100
    assert kept() + sum(counted().values()) == 900


@pytest.mark.sqlite_only
@pytest.mark.parametrize("more", [
    {"topic": "things/weatherstation/STATION-001/cmd"},
    {"user_properties": tuple((f"k{n}", "v" * 1000) for n in range(32))},
    {"correlation_id": "c" * 256, "content_type": "x" * 100},
], ids=["no payload", "user properties", "ids"])  # fmt: skip
def test_what_comes_with_a_message_counts(device, more):
    for _ in range(4):
        pipeline([message(b"", **more)] * 100)

    assert bytes_stored() <= 100 * KIB
    assert sum(QuarantinedMessage.objects.values_list("size", flat=True)) >= bytes_stored()


@pytest.mark.sqlite_only
def test_notes_of_a_refused_message_count(device):
    body = json.dumps({f"{'x' * 60}{n}": 1 for n in range(60)}).encode()
    for _ in range(4):
        pipeline([message(body)] * 20)

    assert kept() < 20
    assert bytes_stored() <= 100 * KIB


@pytest.mark.sqlite_only
def test_what_is_only_counted_is_a_sign_of_life(device):
    fill()
    WeatherStationDevice.objects.update(last_seen=None, connected=False)

    pipeline([message(b"x" * 30 * KIB)])

    device.refresh_from_db()
    assert device.last_seen == NOW


@pytest.mark.sqlite_only
def test_good_messages_go_on_beyond_it(device):
    fill()

    assert pipeline([message(b'{"temperature": 1}'), message(b"x" * 40 * KIB)]) == [
        Outcome.STORED,
        Outcome.FAILED,
    ]
    assert device.readings.count() == 1


@pytest.mark.sqlite_only
def test_the_rate_limit_and_the_allowance_go_together(device, settings):
    settings.DEVICEHUB_RATE_LIMIT = "1/h"
    limits.limiter.clear()
    body = b'{"temperature": 1, "x": "' + b"x" * 40 * KIB + b'"}'
    pipeline([message(body)] * 6)

    assert counted() == {(KEY, "rate_limited"): 3}
    assert device.messages.exclude(outcome="failed").count() == 1


@pytest.mark.sqlite_only
def test_a_neighbour_has_an_allowance_of_its_own(device, neighbour):
    fill()
    pipeline([message(b"x" * 30 * KIB, "STATION-002")])

    assert QuarantinedMessage.objects.filter(device_key="weatherstation/STATION-002").count() == 1


def test_messages_without_a_device_share_one_allowance(device):
    """Ids can be invented without end."""
    for number in range(20):
        pipeline(
            [message(b"x" * 10 * KIB, f"NOBODY-{number}"), message(b"x" * 10 * KIB, topic="nowhere/at/all")]
        )

    assert kept() == 8
    assert counted() == {("", "unknown_device"): 16, ("", "unknown_topic"): 16}
    assert QuarantinedMessage.objects.filter(device_key="weatherstation/NOBODY-3").exists()
    fill()
    assert QuarantinedMessage.objects.filter(device_key=KEY).count() == 3


def test_a_refused_message_of_an_unknown_device_gets_no_allowance_of_its_own(device, monkeypatch):
    """Ids of unknown devices can be invented without end, for any reason of failure."""
    write = store.write

    def refuse(batch, *begin):
        if any(item.reason == FailureReason.UNKNOWN_DEVICE for item in batch):
            raise DataError("it does not fit")
        return write(batch, *begin)

    monkeypatch.setattr(store, "write", refuse)

    assert pipeline([message(device_id="NOBODY"), message()]) == [Outcome.FAILED] * 2
    row = QuarantinedMessage.objects.get(reason="unstorable")
    assert (row.device_key, row.topic) == ("", "things/weatherstation/NOBODY/data")
    assert set(QuarantineUse.objects.values_list("owner", flat=True)) == {"", KEY}


def test_a_device_is_not_charged_for_messages_before_it_existed(device):
    WeatherStationDevice.objects.all().delete()
    fill()
    WeatherStationDevice.objects.create(device_id="STATION-001")
    fill()

    assert kept() == 6


@pytest.mark.sqlite_only
def test_nothing_is_kept_where_nothing_may_be(device, settings):
    settings.DEVICEHUB_QUARANTINE_PER_DEVICE = 0
    fill()

    assert (kept(), device.messages.count(), counted()) == (0, 0, {(KEY, "not_json"): 5})


@pytest.mark.sqlite_only
def test_by_default_it_is_ten_mebibytes(device, settings):
    del settings.DEVICEHUB_QUARANTINE_PER_DEVICE
    for _ in range(4):
        fill(1 << 20, 3)

    assert kept() == 9
    assert sum(QuarantinedMessage.objects.values_list("size", flat=True)) <= 10 << 20


@pytest.mark.sqlite_only
def test_a_raised_allowance_counts_at_once(device, settings):
    fill()
    settings.DEVICEHUB_QUARANTINE_PER_DEVICE = 200 * KIB
    fill()

    assert kept() == 6


@pytest.mark.django_db(transaction=True)
def test_several_workers_pass_the_bound_by_a_batch_each_at_most(device, neighbour):
    """No worker waits for another for ever, in any order of the devices in their batches."""
    batches, size, workers = 15, 4 * KIB, 3
    ids = ["STATION-001", "STATION-002", "NOBODY"]

    def work(number):
        try:
            for _ in range(batches):
                order = ids[number:] + ids[:number]
                pipeline([message(b"x" * size, device_id) for device_id in order for _ in range(4)])
        finally:
            connection.close()

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(workers)))

    for key in (KEY, "weatherstation/STATION-002", "weatherstation/NOBODY"):
        rows = QuarantinedMessage.objects.filter(device_key=key)
        owner = "" if key.endswith("NOBODY") else key
        total = rows.aggregate(sum=Sum("size"))["sum"]
        assert total <= 100 * KIB + workers * 4 * (size + 2 * ROW)
        assert rows.count() + sum(n for (k, _), n in counted().items() if k == owner) == workers * batches * 4
        assert QuarantineUse.objects.get(owner=owner).size <= total


# --- Deletion and replay give the room back


def replay():
    QuarantinedMessage.objects.update(payload=b'{"temperature": 1}')
    call_command("replay_quarantine", stdout=StringIO())
    assert not QuarantinedMessage.objects.filter(replayed_at=None).exists()


def prune():
    old = timezone.now() - timedelta(hours=3)
    QuarantinedMessage.objects.update(received_at=old)
    CountedRefusal.objects.update(last_at=old)
    call_command("prune_telemetry", stdout=StringIO())
    assert not CountedRefusal.objects.exists()


def erase():
    call_command("erase_device", "weatherstation", "STATION-001", "--yes", stdout=StringIO())
    assert not CountedRefusal.objects.exists()
    WeatherStationDevice.objects.create(device_id="STATION-001")


def delete_each():
    for row in QuarantinedMessage.objects.all():
        row.delete()


@pytest.mark.parametrize(
    "free", [replay, prune, erase, lambda: QuarantinedMessage.objects.all().delete(), delete_each],
    ids=["replay", "prune", "erase", "delete()", "each"],
)  # fmt: skip
def test_what_is_gone_counts_no_more(device, settings, free):
    settings.DEVICEHUB_KEEP_QUARANTINE = "1h"
    fill()
    before = QuarantinedMessage.objects.latest("pk").pk

    free()

    fill()
    assert QuarantinedMessage.objects.filter(pk__gt=before).count() == 3


@pytest.mark.sqlite_only
def test_what_fails_again_stays_counted(device):
    fill()
    call_command("replay_quarantine", stdout=StringIO())

    assert kept() == 3
    assert counted() == {(KEY, "not_json"): 2}
    fill(times=1)
    assert kept() == 3


def test_what_was_deleted_by_sql_is_noticed_after_a_while(device, monkeypatch):
    fill()
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM devicehub_quarantine")
    fill()
    assert kept() == 0

    monkeypatch.setattr(allowance, "RECOUNT", timedelta(0))
    fill()
    assert kept() == 3


def test_rows_of_before_count_by_their_bytes(device):
    for _ in range(2):
        QuarantinedMessage.objects.create(
            reason="not_json", topic="t", payload=b"x" * 40 * KIB, device_key=KEY, received_at=NOW
        )
    fill(times=1)

    assert kept() == 2


def test_what_was_rolled_back_counts_nothing(device):
    with transaction.atomic():
        fill()
        transaction.set_rollback(True)

    assert not QuarantineUse.objects.exists()
    fill()
    assert (kept(), counted()) == (3, {(KEY, "not_json"): 2})


@pytest.mark.sqlite_only
def test_of_a_message_that_was_cut_nothing_is_replayed(device, settings):
    settings.DEVICEHUB_QUARANTINE_PER_DEVICE = 10 << 20
    pipeline([message(b'{"temperature": 1}'.ljust((1 << 20) + 1))])

    call_command("replay_quarantine", stdout=StringIO())

    assert QuarantinedMessage.objects.get().replayed_at is None
    assert not device.readings.exists()


# --- Its cost


def test_good_messages_cost_no_statement_for_it(device, neighbour):
    def statements(*batch):
        with CaptureQueriesContext(
            connection,
        ) as queries:
            pipeline(batch)
        return [query["sql"] for query in queries]

    good = statements(message(b'{"temperature": 1}'), message(b'{"temperature": 2}', "STATION-002"))

    assert not [sql for sql in good if "quarantine" in sql or "refusal" in sql]


def test_a_batch_costs_the_same_however_many_of_it_are_refused(device):
    def count(most):
        with CaptureQueriesContext(connection) as queries:
            pipeline([message(b"")] * most)
        return len(queries)

    count(1)

    assert count(40) == count(1)


@pytest.mark.sqlite_only
def test_a_batch_costs_the_same_after_a_deletion_however_many_devices_are_refused(device):
    """A deletion gives room, and the sums of a whole fleet are not counted anew at once."""
    ids = [f"FLEET-{number}" for number in range(40)]
    WeatherStationDevice.objects.bulk_create(WeatherStationDevice(device_id=device_id) for device_id in ids)
    batch = [message(device_id=device_id) for device_id in ids]

    def statements():
        with CaptureQueriesContext(connection) as queries:
            pipeline(batch)
        return len(queries)

    statements()
    before = statements()
    QuarantinedMessage.objects.first().delete()

    assert statements() == before


# --- Where it shows


@pytest.mark.sqlite_only
def test_the_dashboard_and_the_admin_show_what_is_only_counted(device, admin_client):
    fill()

    found = overview.quarantine(User(is_superuser=True))
    assert (found.count, [(one.device_key, one.reason, one.messages) for one in found.counted]) == (
        3,
        [(KEY, "not_json", 2)],
    )
    assert "2 more" in admin_client.get("/").content.decode()
    assert "STATION-001" in admin_client.get("/admin/devicehub/countedrefusal/").content.decode()
    before = found
    fill(times=1)
    assert overview.quarantine(User(is_superuser=True)) != before


@pytest.mark.sqlite_only
def test_the_admin_shows_the_bytes_of_a_failed_message(device, admin_client):
    pipeline([message(b"these bytes")])

    row = device.messages.get()
    page = admin_client.get(f"/admin/fleet/weatherstationmessage/{row.pk}/change/").content.decode()
    assert "these bytes" in page
    assert f"/admin/devicehub/quarantinedmessage/{row.quarantined.pk}/change/" in page
    row.quarantined.delete()
    page = admin_client.get(f"/admin/fleet/weatherstationmessage/{row.pk}/change/").content.decode()
    assert "these bytes" not in page


@pytest.mark.sqlite_only
def test_a_worker_counts_what_is_only_counted(device):
    def only_counted():
        name = "devicehub_ingest_only_counted_messages_total"
        return REGISTRY.get_sample_value(name, {"reason": "not_json"}) or 0

    before = only_counted()
    pipeline([message(b"x" * 30 * KIB)] * 5, notify=lambda batch: stored(batch, 0, 0))

    assert only_counted() - before == 2


@pytest.mark.sqlite_only
def test_devices_with_credentials_have_an_allowance_by_their_key(device):
    provision("STATION-003")
    pipeline([message(b"x" * 30 * KIB, "STATION-003")] * 5)

    assert counted() == {("weatherstation/STATION-003", "not_json"): 2}
