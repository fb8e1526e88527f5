"""The migration of commands that were sent before there was a queue."""

from django.db import connection, connections
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone as clock

from devicehub.models import DeviceCommand
from rig.command_queue import ANSWERED, EXPIRED

# --- The migration


def migrate(name):
    """Migrate devicehub to the migration *name*; return the models of that state."""
    executor = MigrationExecutor(connection)
    executor.migrate([("devicehub", name)])
    return MigrationExecutor(connection).loader.project_state([("devicehub", name)]).apps


def test_commands_of_before_are_answered_or_expired_and_back(transactional_db):
    now = clock.now()
    try:
        before = migrate("0001_initial").get_model("devicehub", "SentCommand")
        one = before.objects.create(
            device_key="a/1", name="x", sent_at=now, answered_at=now, response={"ok": True}
        )
        two = before.objects.create(device_key="a/1", name="x", sent_at=now)
        migrate("0002_durable_commands")

        assert DeviceCommand.objects.get(id=one.id).state == ANSWERED
        command = DeviceCommand.objects.get(id=two.id)
        assert (command.state, command.due_at, command.queued_at) == (EXPIRED, None, now)
        DeviceCommand.objects.create(device_key="a/1", name="unsent")

        before = migrate("0001_initial").get_model("devicehub", "SentCommand")
        assert set(before.objects.values_list("id", flat=True)) == {one.id, two.id}
        assert before.objects.get(id=one.id).response == {"ok": True}
    finally:
        [(_, newest)] = MigrationExecutor(connection).loader.graph.leaf_nodes("devicehub")
        migrate(newest)
    connections.close_all()
