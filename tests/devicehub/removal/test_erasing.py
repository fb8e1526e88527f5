"""Erasing a device: no row of it is left in any table, and all rows of its neighbour stay."""

import json
import signal
import subprocess
import sys
from io import StringIO

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.utils import timezone

from authsvc.models import AuditEntry, Denial, Grant
from devicehub import provisioning, removal
from devicehub.db.batches import Pace
from devicehub.ingest.pipeline import pipeline
from devicehub.kinds import topics
from devicehub.kinds.registry import registry
from devicehub.messages.message import Message
from devicehub.models import DeviceCommand, QuarantinedMessage
from fleet.models import WeatherStationDevice, WeatherStationMessage
from rig.hub import ROOT, environment, eventually
from rig.telemetry import DAY, TOPICS, fill, remains, topics_to_clear


class TestErasing:
    def erase(self, *arguments):
        """Run `erase_device` for the station; return the printed text."""
        out = StringIO()
        call_command("erase_device", "weatherstation", "STATION-001", *arguments, stdout=out)
        return out.getvalue()

    def test_nothing_is_left_of_the_device_and_all_of_its_neighbour(self, station, neighbour):
        fill(station)
        fill(neighbour)
        kept = remains(neighbour)

        counts = json.loads(self.erase("--yes", "--json", "--batch", "7"))

        assert set(remains(station).values()) == {0}
        assert remains(neighbour) == kept
        assert counts == {
            "device": 1,
            "readings": 30,
            "messages": 30,
            "rollups": 32,
            "quarantine": 1,
            "commands": 2,
            "grants": 1,
            "memberships": 0,
            "tags": 0,
            "options": 0,
            "denials": 2,
            "logins": 0,
            "admin_log": 0,
            "api_answers": 0,
            "rotations": 0,
            "retained": 4,
            "audit_kept": 3,
        }
        assert topics_to_clear() == TOPICS
        actions = AuditEntry.objects.filter(object_key="weatherstation/STATION-001")
        assert set(actions.values_list("action", flat=True)) == {
            "removal_requested",
            "device_removed",
            "device_erased",
        }

    def test_a_dry_run_counts_the_same_and_changes_nothing(self, station):
        fill(station)
        before = remains(station)

        counts = json.loads(self.erase("--dry-run", "--json"))

        assert {name: counts[name] for name in before} == before == remains(station)
        assert topics_to_clear() == []
        assert "30 readings" in self.erase("--dry-run")
        assert "Kept: 0 audit entries about it" in self.erase("--dry-run")

    def test_one_that_goes_on_sending_does_not_keep_it_from_ending(self, station, kind):
        """An open connection stays: each message of the disabled device is a row, and a row in the quarantine."""
        fill(station)
        batches = []

        def send(rows):
            batches.append(rows)
            if len(batches) == 100:
                pace.stop.set()
            pipeline(
                [Message("things/weatherstation/STATION-001/data", b'{"temperature": 1}', timezone.now())]
            )

        pace = Pace(rows=7, report=send)
        removal.erase(kind, "STATION-001", pace)

        assert remains(station) == dict.fromkeys(remains(station), 0) | {
            "quarantine": QuarantinedMessage.objects.count()
        }

    def test_what_a_deleted_device_left_behind_is_erased_too(self, station):
        fill(station)
        station.delete()
        assert remains(station)["quarantine"] == 1

        self.erase("--yes")

        assert {name: n for name, n in remains(station).items() if n} == {
            "denials": 1
        }  # This one holds no key.
        with pytest.raises(
            CommandError, match="There is no weatherstation/STATION-001, and no data of it is left"
        ):
            self.erase("--yes")

    def test_denials_go_that_hold_only_the_derived_username_or_the_client_id(self, kind, neighbour):
        """Also of a deleted device; the denial of the neighbour with its client id stays."""
        station, _ = provisioning.create(kind, "STATION-001")
        username = station.mqtt_username
        station.delete()
        for name, client in (
            (username, "x"),
            ("", username),
            ("", "STATION-001"),
            ("neighbour", "STATION-001"),
        ):
            Denial.objects.create(
                dialect="emqx",
                username=name,
                client_id=client,
                action="connect",
                reason="unknown_user",
                first_at=DAY,
                last_at=DAY,
            )
        assert json.loads(self.erase("--dry-run", "--json"))["denials"] == 3

        assert json.loads(self.erase("--yes", "--json"))["denials"] == 3

        assert Denial.objects.get().username == "neighbour"

    def test_messages_on_unknown_topics_below_its_own_go(self, station):
        others = ["things/weatherstation/STATION-0011/gps", "things/weatherstation/station-001/gps"]
        own = ["things/weatherstation/STATION-001/gps/raw", "things/weatherstation/STATION-001"]
        pipeline([Message(topic, b"52.1", timezone.now()) for topic in own + others])
        assert json.loads(self.erase("--dry-run", "--json"))["quarantine"] == 2

        assert json.loads(self.erase("--yes", "--json", "--batch", "1"))["quarantine"] == 2

        assert sorted(QuarantinedMessage.objects.values_list("topic", flat=True)) == others

    def test_what_the_admin_wrote_down_of_it_goes(self, station, neighbour):
        """The entries of the admin's log hold the name of the device."""
        operator = User.objects.create_superuser("operator")
        for device in (station, neighbour):
            LogEntry.objects.log_actions(operator.pk, [device], CHANGE, single_object=True)
        assert json.loads(self.erase("--dry-run", "--json"))["admin_log"] == 1

        assert "1 admin log" in self.erase("--yes")

        assert LogEntry.objects.get().object_id == str(neighbour.pk)

    def test_lines_of_the_admin_stay_that_name_another_by_other_letters(self, station):
        """Usernames and ids are case-sensitive, and a project may have denials of its own."""
        operator = User.objects.create_superuser("operator")
        username = WeatherStationDevice.objects.get(device_id="STATION-001").mqtt_username
        denied = {"topic": "t", "dialect": "emqx", "action": "publish", "reason": "no_grant"}
        for name in (username, username.swapcase()):
            Denial.objects.create(username=name, first_at=DAY, last_at=DAY, **denied)
        LogEntry.objects.log_actions(operator.pk, list(Denial.objects.all()), CHANGE)

        self.erase("--yes")

        assert LogEntry.objects.get().object_repr.startswith(f"{username.swapcase()} ")

    @pytest.mark.parametrize("is_deleted", [False, True])
    def test_lines_of_the_admin_go_that_name_it(self, station, neighbour, is_deleted):
        """Entries about its grants, commands, messages and denials are erased, also if those rows were deleted."""
        operator = User.objects.create_superuser("operator")
        other = WeatherStationDevice.objects.create(device_id="STATION-001:a", mqtt_username="station-2")
        for device in (station, neighbour, other):
            fill(device, 1)
            topic = f"things/weatherstation/{device.device_id}/data"
            written = WeatherStationMessage.objects.create(device=device, topic=topic)
            rows = [*Grant.objects.all(), *DeviceCommand.objects.all(), *Denial.objects.all(), written]
            for row in rows:
                LogEntry.objects.log_actions(operator.pk, [row], CHANGE, single_object=True)
            Grant.objects.all().delete()
            DeviceCommand.objects.all().delete()
            Denial.objects.all().delete()
        Denial.objects.create(
            username="neighbour", topic=topics.build(registry.get("weatherstation"), "STATION-001", "data"),
            dialect="emqx", action="publish", reason="no_grant", first_at=DAY, last_at=DAY,
        )  # fmt: skip
        LogEntry.objects.log_actions(operator.pk, list(Denial.objects.all()), CHANGE, single_object=True)
        if is_deleted:
            station.delete()

        self.erase("--yes")

        left = list(LogEntry.objects.values_list("object_repr", flat=True))
        assert [text for text in left if "STATION-001" in text.replace("STATION-001:a", "")] == [
            "neighbour publish things/weatherstation/STATION-001/data: no_grant"
        ]
        assert (
            left.count("station publish t: no_grant") == 2 * is_deleted
        )  # The username of a deleted device is not stored any more.
        assert len(left) == 2 * 6 + 1 + 2 * is_deleted

    def test_without_yes_and_without_a_terminal_nothing_is_done(self, station):
        with pytest.raises(CommandError, match="--yes erases without confirmation"):
            self.erase()

        assert remains(station)["device"] == 1

    @pytest.mark.servers
    @pytest.mark.django_db(transaction=True)
    def test_killed_in_the_middle_it_is_disabled_and_goes_on_the_next_time(self, tmp_path):
        station = WeatherStationDevice.objects.create(device_id="STATION-001", mqtt_username="station")
        fill(station, 400)
        command = [sys.executable, "manage.py", "erase_device", "weatherstation", "STATION-001", "--yes"]
        process = subprocess.Popen(
            [*command, "--batch", "1"], cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL
        )
        assert eventually(lambda: 0 < remains(station)["readings"] < 400, 30)
        process.kill()
        process.wait()

        assert remains(station)["device"] == 1
        assert WeatherStationDevice.objects.get().is_active is False
        self.erase("--yes")
        assert set(remains(station).values()) == {0}

    @pytest.mark.servers
    @pytest.mark.django_db(transaction=True)
    def test_sigterm_ends_it_after_the_batch_at_hand(self, tmp_path):
        station = WeatherStationDevice.objects.create(device_id="STATION-001", mqtt_username="station")
        fill(station, 400)
        command = [sys.executable, "manage.py", "erase_device", "weatherstation", "STATION-001", "--yes"]
        process = subprocess.Popen(
            [*command, "--batch", "1"], cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True
        )
        assert eventually(lambda: 0 < remains(station)["readings"] < 400, 30)
        process.send_signal(signal.SIGTERM)

        _, said = process.communicate(timeout=10)
        assert process.returncode == 1
        assert "weatherstation/STATION-001 is disabled, but not erased yet; run the command again" in said
        assert 0 < remains(station)["readings"] < 400
