"""Grants: in force with the next question after any kind of write, for their subjects only."""

from __future__ import annotations

import pytest
from django.utils import timezone

from authsvc import granting
from authsvc.core.access import Reason
from authsvc.core.grants import ActionSet
from authsvc.models import Account, Denial, Grant, LastLogin
from devicehub import provisioning
from rig.asking import reasons, sql
from rig.cast import provision

pytestmark = pytest.mark.usefixtures("nothing_pending")


# ---------------------------------------------------------------- grants


class TestGrants:
    @pytest.fixture
    def grant(self, transactional_db):
        def one(subject, text, actions="all", effect="allow"):
            made = Grant.objects.create(subject="key:x/x", filter=text, actions=actions, effect=effect)
            # By SQL, because the model refuses some of the invalid subjects.
            sql(f"UPDATE {Grant._meta.db_table} SET subject = %s WHERE id = %s", subject, made.pk)
            return made

        return one

    def test_new_and_removed_with_the_next_question(self, may, station, grant):
        assert not may(station, 4, "news/#")
        new = grant("everyone", "news/#")
        assert may(station, 4, "news/#")
        new.delete()
        assert not may(station, 4, "news/#")

    def test_by_sql_too(self, may, station):
        table = Grant._meta.db_table
        sql(
            f"INSERT INTO {table} (subject, effect, actions, filter, note, created_at) "
            "VALUES ('everyone', 'allow', 'all', 'news/+', '', %s)",
            timezone.now(),
        )
        assert may(station, 2, "news/1")
        sql(f"UPDATE {table} SET effect = 'deny'")
        assert not may(station, 2, "news/1")
        sql(f"UPDATE {table} SET effect = 'allow', actions = 'subscribe'")
        assert not may(station, 2, "news/1")
        assert may(station, 4, "news/1")
        sql(f"DELETE FROM {table}")
        assert not may(station, 4, "news/1")

    def test_by_other_writers(self, may, station, grant):
        """bulk_create, update() and a savepoint send no signal, but fire the triggers."""
        Grant.objects.bulk_create([Grant(subject="everyone", effect="allow", actions="all", filter="a")])
        assert may(station, 2, "a")
        Grant.objects.update(filter="b")
        assert not may(station, 2, "a")
        assert may(station, 2, "b")
        Grant.objects.all()._raw_delete("default")
        assert not may(station, 2, "b")

    def test_without_a_revision_nothing_is_cached(self, may, station, grant):
        """After a flush, or a restore without that row, earlier reads must not be used for ever."""
        grant("everyone", "a")
        assert may(station, 2, "a")
        sql("DELETE FROM authsvc_policy")
        assert may(station, 2, "a")
        Grant.objects.all().delete()
        assert not may(station, 2, "a")
        grant("everyone", "b")
        assert may(station, 2, "b")

    def test_subjects(self, may, station, neighbour, grant):
        valve = provision("V1", "irrigationvalve")
        account, _ = provisioning.create_account("backend")
        grant("everyone", "all/x")
        grant("type:weatherstation", "stations/x")
        grant("key:weatherstation/STATION-001", "one/x")
        grant("key:account/backend", "backend/x")
        grant("type:account", "nobody/x")
        grant("key:", "nobody/x")
        grant("key:STATION-001", "nobody/x")
        grant("Everyone", "nobody/x")

        rights = {
            station: ["all/x", "stations/x", "one/x"],
            neighbour: ["all/x", "stations/x"],
            valve: ["all/x"],
            account: ["all/x", "backend/x"],
        }
        for who, topics in rights.items():
            for topic in ("all/x", "stations/x", "one/x", "backend/x", "nobody/x"):
                assert may(who, 2, topic) is (topic in topics), (who.username, topic)

    def test_a_subject_without_a_type_matches_nothing(self, may, grant):
        """The model refuses it, SQL does not. Accounts do not have a type, and it must not match them."""
        account, _ = provisioning.create_account("backend")
        grant("type:", "a")

        assert not may(account, 2, "a")

    def test_placeholders(self, may, station, neighbour, grant):
        grant("everyone", "u/{username}/{client_id}/#")
        grant("everyone", "{prefix}/{type}/{device_id}/extra")

        own = f"u/{station.username}/{station.username}/x"
        assert may(station, 2, own)
        assert may(station, 2, station.topic("extra"))
        assert may(station, 2, f"u/{station.username}/STATION-001/x", clientid="STATION-001")
        assert not may(station, 2, own, clientid="STATION-001")
        assert not may(neighbour, 2, own)
        assert not may(neighbour, 2, station.topic("extra"))
        for topic in (own.replace(station.username, "+"), "u/{username}/{client_id}/x", "u/#"):
            assert not may(station, 4, topic)

    @pytest.mark.parametrize("client_id", ["+", "#", "a/b", "$SYS", "\u0000"], ids=ascii)
    def test_a_client_id_cannot_widen_a_grant(self, may, station, grant, settings, client_id):
        settings.AUTHSVC_CLIENT_ID = "any"
        grant("everyone", "{client_id}/x")

        for topic in (f"{client_id}/x", "a/x", "a/b/x", "$SYS/x"):
            for acc in (1, 2, 4):
                assert not may(station, acc, topic, clientid=client_id), (acc, topic)

    def test_a_deny_wins(self, may, station, grant):
        own, commands = station.topic("data"), station.topic("cmd")
        grant("everyone", "news/#")
        assert may(station, 4, "news/#")
        grant("type:weatherstation", "news/secret", "subscribe", "deny")

        assert not may(station, 4, "news/#")
        assert not may(station, 4, "news/+")
        assert not may(station, 4, "news/secret")
        assert may(station, 4, "news/other")
        assert may(station, 2, "news/secret")
        assert may(station, 2, own)
        grant("key:weatherstation/STATION-001", "things/#", "all", "deny")
        assert not may(station, 2, own)
        assert not may(station, 4, commands)
        assert not may(station, 1, commands)
        assert reasons() == {Reason.DENY_GRANT}
        assert Denial.objects.filter(topic=own).get().rule.startswith("grant ")

    @pytest.mark.parametrize("actions", ActionSet)
    def test_an_action_is_that_action(self, may, station, grant, actions):
        grant("everyone", "a", actions.value)

        allowed = [
            word for acc, word in ((2, "publish"), (4, "subscribe"), (1, "receive")) if may(station, acc, "a")
        ]
        assert allowed == list(actions.words)

    def test_a_share_is_checked_by_its_filter(self, may, station, grant):
        grant("everyone", "news/+", "subscribe")

        assert may(station, 4, "$share/g/news/+")
        for topic in (
            "$share/g/news/#",
            "$share/g/#",
            "$share/+/news/+",
            "$share//news/+",
            "$share/g/$share/g/news/+",
        ):
            assert not may(station, 4, topic)

    def test_a_superuser_keeps_to_mqtt(self, may):
        root, _ = provisioning.create_account("root", superuser=True)

        assert may(root, 4, "#")
        assert may(root, 2, "things/weatherstation/STATION-001/cmd")
        for acc, topic in (
            (2, "a/+"),
            (2, "#"),
            (2, ""),
            (4, "a/#/b"),
            (2, "$CONTROL/x"),
            (4, "$CONTROL/#"),
            (2, "a\n"),
        ):
            assert not may(root, acc, topic)


@pytest.mark.django_db
@pytest.mark.parametrize("way", ["model", "query set"])
def test_an_account_of_the_same_name_has_no_grants_of_the_deleted_one(way):
    account = Account.objects.create(username="backend")
    granting.create_grant("key:account/backend", ["publish"], "plant/#")
    kept = granting.create_grant("everyone", ["receive"], "news/#")
    LastLogin.objects.create(key="account/backend", first_at=timezone.now(), at=timezone.now())

    account.delete() if way == "model" else Account.objects.filter(pk=account.pk).delete()

    assert list(Grant.objects.all()) == [kept]
    assert not LastLogin.objects.exists()


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        ("everyone", "Everyone"),
        ("type:weatherstation", "Every weatherstation"),
        ("type:account", "Every service account"),
        ("group:barn", "Group “barn”"),
        ("key:weatherstation/STATION-001", "Device weatherstation/STATION-001"),
        ("key:account/backend", "Service account “backend”"),
        ("key:weatherstation/account", "Device weatherstation/account"),
    ],
)
def test_a_grant_names_its_subject_in_words(subject, words):
    grant = Grant(subject=subject, actions="publish,receive", effect="deny", filter="plant/#")

    assert grant.whom == words
    assert str(grant) == f"{words}: deny publish, receive on plant/#"
