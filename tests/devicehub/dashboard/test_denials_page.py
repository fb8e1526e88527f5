"""The pages of denials and the simulator: content, filters, permissions, sites, and hostile text."""

from __future__ import annotations

import itertools
from datetime import timedelta
from functools import partial
from urllib.parse import quote

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from authsvc.core.access import Reason
from authsvc.models import Account, AuditEntry, Broker, Denial, Grant
from devicehub import roles
from fleet.models import WeatherStationDevice
from rig import denied
from rig.cast import Cast, provision
from rig.people import person

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.pages]
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
FOREIGN = "things/weatherstation/STATION-002/data"


denial = partial(denied.denial, client_id="STATION-001", address="10.0.0.7", count=214)


@pytest.fixture
def operator(station: Cast, client: Client) -> User:
    WeatherStationDevice.objects.update(site="north", name="Ridge")
    found = person("operator", roles.OPERATOR)
    client.force_login(found)
    return found


@pytest.fixture
def text(client: Client, operator: User):
    def get(path: str, status: int = 200) -> str:
        response = client.get(path)
        assert response.status_code == status
        assert "unsafe" not in response.headers["Content-Security-Policy"]
        return " ".join(response.content.decode().split())

    return get


class TestList:
    def test_a_cause_says_all_that_is_known(self, text):
        found = denial()
        page = text("/denials/")

        assert "This topic belongs to STATION-002." in page
        assert "1 cause in the last 24 h" in page
        for part in (
            "Ridge, north",
            ">214<span",
            "fleet-weatherstationdevice-STATION-001</code>",
            "client id <code>STATION-001</code>",
            "10.0.0.7",
            "orchard-main, mosquitto, go-auth",
            '<td class="differs"><span>STATION-002',
            '<td class="wanted"><span>STATION-001',
            "May publish",
            f'href="/denials/{found.pk}/allow/"',
        ):
            assert part in page, part
        assert "who=weatherstation%2FSTATION-001&amp;action=publish" in page

    def test_a_rule_outside_its_period_says_so(self, text):
        ended = timezone.now() - timedelta(hours=1)
        Grant.objects.create(subject="everyone", actions="publish", filter=FOREIGN, valid_until=ended)
        denial()

        assert f"Its period ended at {ended:%Y-%m-%d %H:%M:%S} UTC." in text("/denials/")

    def test_the_causes_of_the_last_hour_are_counted_apart(self, text):
        denial()
        denial(topic="x/1", last_at=timezone.now() - timedelta(minutes=61))
        denial(topic="x/2", reason=Reason.DENY_GRANT)

        assert "3 causes in the last 24 h, 2 of them refused in the last hour." in text("/denials/")
        page = text(f"/denials/?reason={Reason.NO_GRANT}")
        assert "2 causes in the last 24 h, 1 of them refused in the last hour." in page

    def test_the_overview_leads_to_a_cause(self, text):
        found = denial()

        assert f'<a class="id" href="/denials/{found.pk}/">weatherstation/STATION-001</a>' in text("/")

    def test_a_username_that_is_a_device_id_names_the_right_one(self, text):
        denial(username="STATION-001", principal="", action="user", topic="", reason="unknown_username")

        assert "A device has the id STATION-001; its username is" in text("/denials/")

    def test_filters(self, text):
        denial()
        for query, is_there in (
            ("reason=no_grant", True),
            ("reason=wrong_password", False),
            ("action=publish", True),
            ("action=connect", False),
            ("device=weatherstation/STATION-001", True),
            ("device=weatherstation/STATION-002", False),
            ("broker=orchard-main", True),
            ("broker=orchard-spare", False),
            ("q=station-002", True),
            ("q=nothing", False),
            ("since=7d", True),
            ("since=nonsense&before=nonsense&action=x", True),
            ("before=2020-01-01~1", False),
            ("before=~", True),
            ("before=0001-01-01T00:00:00%2B23:59~1", True),
            ("before=9999-12-31T23:59:59-23:59~1", True),
            ("q=%00%ff", False),
        ):
            assert ("This topic belongs to STATION-002." in text(f"/denials/?{query}")) is is_there, query

    def test_logins_of_all_dialects_are_connect(self, text):
        for action in ("user", "authn", "register", "auth"):
            denial(action=action, topic="", reason="wrong_password")

        assert "4 causes" in text("/denials/?action=connect")

    def test_old_and_dismissed_ones_are_left_out(self, text):
        denial(last_at=timezone.now() - timedelta(days=2), topic="old/one")
        denial(dismissed_at=timezone.now(), topic="seen/one")

        page = text("/denials/")
        assert "Nothing was denied." in page
        assert "<span>old<" in text("/denials/?since=7d")
        assert "<span>seen<" in text("/denials/?dismissed=1")
        assert "seen/one" not in text("/")

    def test_pages_are_by_key_and_have_every_cause_once(self, client, operator):
        now = timezone.now()
        for number in range(45):
            denial(topic=f"t/{number:02}", last_at=now - timedelta(seconds=number // 3))
        seen: list[str] = []
        path = "/denials/"
        for _ in range(3):
            listed = client.get(path).context["listed"]
            seen += [row.denial.topic for row in listed.rows]
            path = f"/denials/{listed.older}"

        assert sorted(seen) == [f"t/{number:02}" for number in range(45)]
        assert listed.older == ""

    def test_a_page_takes_the_same_queries_for_any_number(
        self, client, operator, django_assert_max_num_queries
    ):
        for number in range(20):
            denial(topic=f"t/{number}")
            Grant.objects.create(subject="everyone", actions="publish", filter=f"x/{number}")
        client.get("/denials/")

        with django_assert_max_num_queries(30):
            client.get("/denials/")

    def test_hostile_text_is_escaped(self, text):
        found = denial(
            username=HOSTILE, client_id=HOSTILE, topic=f"a/{HOSTILE}", principal="", broker=HOSTILE
        )

        for path in (
            "/denials/",
            f"/denials/{found.pk}/",
            f"/denials/?q={quote(HOSTILE)}&device={quote(HOSTILE)}&broker={quote(HOSTILE)}",
        ):
            page = text(path)
            assert "<img src=x" not in page
            assert "<script>alert" not in page

    def test_the_rest_of_a_client_is_one_line(self, text):
        denial(reason=Denial.REST, action="", topic="", dialect="", count=23_950)

        page = text("/denials/")
        assert "And 23,950 more topics or names" in page
        assert "Allow this" not in page


class TestDismiss:
    def test_it_is_hidden_and_in_the_audit(self, client, operator):
        found = denial()

        response = client.post(f"/denials/{found.pk}/dismiss/")

        assert response.headers["Location"] == "/denials/"
        assert "This topic belongs" not in client.get("/denials/").content.decode()
        row = AuditEntry.objects.get(action="denial_dismissed")
        assert (row.actor, row.object_key, row.after["topic"]) == ("operator", found.principal, FOREIGN)
        client.post(f"/denials/{found.pk}/dismiss/")
        assert AuditEntry.objects.filter(action="denial_dismissed").count() == 1

    def test_it_is_a_post_with_a_token(self, operator):
        found = denial()
        strict = Client(enforce_csrf_checks=True)
        strict.force_login(operator)

        assert strict.get(f"/denials/{found.pk}/dismiss/").status_code == 405
        assert strict.post(f"/denials/{found.pk}/dismiss/").status_code == 403
        assert (
            strict.post(f"/denials/{found.pk}/allow/", {"for": "this", "action": "publish"}).status_code
            == 403
        )
        assert Denial.objects.get().dismissed_at is None
        assert not Grant.objects.exists()

    def test_a_viewer_may_not(self, client, station):
        found = denial()
        client.force_login(person("viewer"))

        page = client.get("/denials/").content.decode()
        assert "Dismiss</button>" not in page
        assert "Allow this" not in page
        assert client.post(f"/denials/{found.pk}/dismiss/").status_code == 403
        assert client.get(f"/denials/{found.pk}/allow/").status_code == 403
        assert (
            client.post(f"/denials/{found.pk}/allow/", {"for": "this", "action": "publish"}).status_code
            == 403
        )
        assert not Grant.objects.exists()


class TestAllow:
    def test_the_page_says_what_it_opens_and_for_how_many(self, text):
        for number in range(2, 9):
            provision(f"STATION-00{number}")
        page = text(f"/denials/{denial(action='subscribe', topic='fw/STATION-001/#').pk}/allow/")

        assert "STATION-001 only" in page
        assert "Affects 7 other devices" in page
        assert "fw/{device_id}/#" in page
        assert "fw/STATION-002/#" in page
        assert page.count("checked") == 3  # This device, subscribe and receive.

    def test_a_wildcard_lists_the_topics_of_devices_that_it_meets(self, text):
        provision("VALVE-1", "irrigationvalve")
        page = text(f"/denials/{denial(action='subscribe', topic='$share/g/things/+/+/cmd').pk}/allow/")

        assert "things/weatherstation/+/cmd</code> of 1 device" in page
        assert "things/irrigationvalve/+/cmd</code> of 1 device" in page
        assert "/data" not in page.partition("It opens")[2]

    def test_the_topic_of_another_device_has_a_warning(self, text):
        assert "STATION-001 could then publish as STATION-002." in text(f"/denials/{denial().pk}/allow/")

    @pytest.mark.parametrize(
        ("chosen", "subject"), [("this", "key:weatherstation/STATION-001"), ("type", "type:weatherstation")]
    )
    def test_a_post_creates_one_grant_in_the_audit(self, client, operator, chosen, subject):
        found = denial(topic="site/STATION-001/frost")

        answer = client.post(
            f"/denials/{found.pk}/allow/",
            {"for": chosen, "action": ["publish"], "note": "frost alarm"},
            follow=True,
        )

        grant = Grant.objects.get()
        own = "STATION-001" if chosen == "this" else "{device_id}"
        assert (grant.subject, grant.filter) == (subject, f"site/{own}/frost")
        assert (grant.actions, grant.note) == ("publish", "frost alarm")
        row = AuditEntry.objects.get(action="grant_created")
        assert (row.actor, row.reason) == ("operator", "frost alarm")
        page = answer.content.decode()
        assert "Allowed now" in page
        who = "STATION-001" if chosen == "this" else "every weatherstation"
        assert f"Grant {grant.pk} is in force: {who} may publish site/{own}/frost." in page
        assert "<h1>STATION-001 may publish now</h1>" in page

    def test_twice_is_refused_in_words(self, client, operator):
        found = denial()
        given = {"for": "this", "action": "publish"}
        client.post(f"/denials/{found.pk}/allow/", given)
        again = client.post(f"/denials/{found.pk}/allow/", given)

        assert Grant.objects.count() == 1
        assert 'role="alert"' in again.content.decode()

    def test_another_choice_is_refused(self, client, operator):
        found = denial()
        for given in (
            {},
            {"for": "everyone", "action": "publish"},
            {"for": "this"},
            {"for": "this", "action": "own"},
        ):
            answer = client.post(f"/denials/{found.pk}/allow/", given)

            assert answer.status_code == 200
            assert 'role="alert"' in answer.content.decode()
        assert not Grant.objects.exists()

    def test_a_denial_that_no_grant_should_change_is_not_offered_one(self, client, operator):
        for fields in (
            {"topic": "x/{username}"},  # The client chose it; a grant would fill it for each device.
            {"topic": "x/{device_id}/#", "action": "subscribe"},
            {"topic": "x" * 256},
            {"reason": "deny_grant"},
            {"reason": "wrong_password", "action": "user", "topic": ""},
            {"reason": "unknown_username", "principal": ""},
            {"reason": Denial.REST, "action": "", "topic": ""},
            {"topic": "$CONTROL/x"},
        ):
            found = denial(**fields)

            assert "Allow this" not in client.get(f"/denials/{found.pk}/").content.decode(), fields
            answer = client.post(f"/denials/{found.pk}/allow/", {"for": "this", "action": "publish"})
            assert answer.status_code == 403
        assert not Grant.objects.exists()

    def test_an_account_has_one_choice(self, client, operator):
        Account.objects.create(username="node-red")
        found = denial(username="node-red", principal="account/node-red", topic="things/x/y/cmd")

        page = client.get(f"/denials/{found.pk}/allow/").content.decode()

        assert "The account node-red" in page
        assert page.count('name="for"') == 1
        client.post(f"/denials/{found.pk}/allow/", {"for": "this", "action": "publish"})
        assert Grant.objects.get().subject == "key:account/node-red"


class TestSimulator:
    def test_an_answer_has_verdict_levels_steps_rules_and_wire(self, text):
        page = text(f"/simulator/?who=STATION-001&action=publish&topic={FOREIGN}")

        for part in (
            '<h2 id="verdict">Denied</h2>',
            "This topic belongs to STATION-002.",
            '<td class="differs"><span>STATION-002',
            "Level 3 is STATION-001, not STATION-002.",
            "HTTP 403",
            "{&quot;result&quot;:&quot;deny&quot;}",
            "Asked with the client id fleet-weatherstationdevice-STATION-001",
            "- who: STATION-001",
            "expect: deny",
        ):
            assert part in page, part
        assert "password" not in page.partition("<form")[2].partition("</form>")[0].replace("no password", "")

    def test_any_name_of_a_device_will_do(self, text):
        WeatherStationDevice.objects.update(mqtt_client_id="radio 7")
        for who in ("STATION-001", "weatherstation/STATION-001", "radio 7"):
            page = text(f"/simulator/?who={quote(who)}&topic=things/weatherstation/STATION-001/data")
            assert '<h2 id="verdict">Allowed</h2>' in page

    def test_a_login_and_one_broker(self, text):
        page = text("/simulator/?who=STATION-001&action=connect&broker=rabbitmq")

        assert "With the right password it may connect." in page
        assert page.count("HTTP 200") == 1
        assert "It may connect as" in page
        assert '<h2 id="verdict">Allowed</h2>' in page

    def test_a_login_that_was_refused_lately_is_not_all_well(self, text):
        changed = timezone.now() - timedelta(minutes=2)
        WeatherStationDevice.objects.update(credentials_changed_at=changed)
        found = denial(action="user", topic="", reason="wrong_password", count=3)

        page = text("/simulator/?who=STATION-001&action=connect")
        assert "Allowed with the right password only</h2>" in page
        assert "3 times in all" in page
        assert "Its credentials were changed <time" in page
        assert f'href="/denials/{found.pk}/"' in page
        assert "Its credentials were changed <time" in text(f"/denials/{found.pk}/")
        WeatherStationDevice.objects.update(credentials_changed_at=timezone.now() + timedelta(minutes=2))
        assert "Its credentials were changed" not in text(f"/denials/{found.pk}/")

    def test_an_empty_page_and_incomplete_questions(self, text):
        assert "verdict" not in text("/simulator/")
        assert "Write the topic" in text("/simulator/?who=STATION-001")
        assert "unknown_username" in text("/simulator/?who=stranger&topic=a")

    def test_nothing_is_written(self, client, operator):
        client.get("/simulator/?who=STATION-001&topic=a")
        client.get("/simulator/?who=stranger&action=connect")

        assert not Denial.objects.exists()
        assert not Grant.objects.exists()
        assert client.post("/simulator/", {"who": "STATION-001"}).status_code == 405

    def test_hostile_questions_are_answered_and_escaped(self, text):
        topics = (HOSTILE, "x" * 10_000, "/" * 10_000, "\x00", "{username}", "+/#/+", "’“\U0001f4a3\u202e")
        for topic, action in itertools.product(topics, ("publish", "subscribe", "receive")):
            rest = f"topic={quote(topic)}&client_id={quote(topic)}"
            page = text(f"/simulator/?who=STATION-001&action={action}&{rest}")
            assert "<img src=x" not in page
            assert "<script>alert" not in page
            assert "Denied" in page

    def test_bytes_that_are_not_text_are_answered(self, text):
        for query in ("who=%ff%fe&topic=%ff", "who=%00&topic=%00&client_id=%00", "who=" + "x" * 9_000):
            text(f"/simulator/?topic=a&{query}")
            text(f"/simulator/?action=connect&{query}")

    def test_the_grant_of_the_admin_is_filled_in_for_those_who_may(self, client, operator):
        question = f"/simulator/?who=STATION-001&topic={FOREIGN}"
        assert "Allow this" not in client.get(question).content.decode()
        operator.is_staff = True
        operator.save()

        assert (
            "/admin/authsvc/grant/add/?subject=key%3Aweatherstation" in client.get(question).content.decode()
        )


class TestSites:
    """A viewer and an operator of one site, who probe the others."""

    @pytest.fixture
    def fleet(self, station: Cast, neighbour: Cast) -> dict[str, Denial]:
        WeatherStationDevice.objects.filter(device_id="STATION-001").update(site="north")
        WeatherStationDevice.objects.filter(device_id="STATION-002").update(site="south")
        Account.objects.create(username="backend")
        return {
            "own": denial(topic="own/one"),
            "other": denial(
                topic="other/one", principal="weatherstation/STATION-002", username=neighbour.username
            ),
            "account": denial(topic="account/one", principal="account/backend", username="backend"),
            "unknown": denial(topic="unknown/one", principal="", username="stranger"),
        }

    @pytest.fixture(params=[roles.VIEWER, roles.ADMINISTRATOR])
    def limited(self, request, client: Client, fleet) -> Client:
        client.force_login(person("limited", request.param, ["north"]))
        return client

    def test_they_see_the_denials_of_their_devices_only(self, limited, fleet):
        page = limited.get("/denials/?since=all&dismissed=1").content.decode()

        assert "own" in page
        for text in ("other", "STATION-002", "backend", "stranger"):
            assert text not in page.partition("<main")[2], text

    def test_no_filter_and_no_address_shows_others(self, limited, fleet):
        for query in ("device=weatherstation/STATION-002", "q=other", "device=account/backend"):
            assert limited.get(f"/denials/?{query}").context["listed"].rows == []
        for name in ("other", "account", "unknown"):
            for path in ("", "allow/"):
                assert limited.get(f"/denials/{fleet[name].pk}/{path}").status_code == 404
            for path in ("allow/", "dismiss/"):
                assert limited.post(f"/denials/{fleet[name].pk}/{path}").status_code == 404
        assert not Denial.objects.exclude(dismissed_at=None).exists()

    def test_they_are_never_offered_a_grant(self, limited, fleet):
        path = f"/denials/{fleet['own'].pk}/"

        assert "Allow this" not in limited.get(path).content.decode()
        assert limited.get(f"{path}allow/").status_code == 403
        assert limited.post(f"{path}allow/", {"for": "this", "action": "publish"}).status_code == 403
        assert not Grant.objects.exists()

    def test_the_simulator_does_not_tell_others_from_strangers(self, limited, neighbour):
        def page(who: str, action: str) -> str:
            text = limited.get(f"/simulator/?who={quote(who)}&action={action}&topic=a").content.decode()
            return text.replace(who, "").partition("<main")[2]

        for action in ("connect", "publish"):
            strange = page("stranger", action)
            assert "No device or account that you may see has this name." in strange
            for who in (
                "STATION-002",
                "weatherstation/STATION-002",
                neighbour.username,
                "backend",
                "account/backend",
            ):
                assert page(who, action) == strange

    def test_the_simulator_answers_for_their_own(self, limited):
        page = limited.get("/simulator/?who=STATION-001&action=connect").content.decode()

        assert '<h2 id="verdict">Allowed</h2>' in page

    def test_a_name_shared_with_another_site_means_their_own(self, limited):
        """Also when the other one comes first: its username is the device id that they ask about."""
        WeatherStationDevice.objects.filter(device_id="STATION-002").update(mqtt_client_id="shared")
        WeatherStationDevice.objects.filter(device_id="STATION-001").update(mqtt_client_id=None)
        Account.objects.create(username="STATION-001")
        page = limited.get("/simulator/?who=STATION-001&topic=a").content.decode()

        assert "weatherstation/STATION-001" in page
        assert "account/" not in page.partition("<main")[2]


class TestPermissions:
    def test_strangers_sign_in_first(self, client, station):
        found = denial()
        for path in (
            "/denials/",
            f"/denials/{found.pk}/",
            f"/denials/{found.pk}/allow/",
            "/simulator/?who=a",
        ):
            assert client.get(path).headers["Location"].startswith("/login/")
        assert client.post(f"/denials/{found.pk}/dismiss/").headers["Location"].startswith("/login/")

    def test_a_user_who_may_see_devices_only(self, client, station):
        found = denial()
        gardener = person("gardener", role=None)
        gardener.user_permissions.add(Permission.objects.get(codename="view_weatherstationdevice"))
        client.force_login(gardener)

        for path in ("/denials/", f"/denials/{found.pk}/", "/simulator/?who=STATION-001&topic=a"):
            assert client.get(path).status_code == 403
        rail = client.get("/").content.decode().partition('class="rail"')[2].partition("</nav>")[0]
        assert "/denials/" not in rail
        assert "/simulator/" not in rail

    def test_grants_are_not_shown_to_those_who_may_not_see_them(self, client, station):
        """The nearest rule is left out, unless it is one of the device's own topics."""
        Grant.objects.create(subject="everyone", actions="publish", filter="secret/plan/x")
        found = denial(topic="secret/plan/y")
        guard = person("guard", role=None)
        names = ("view_weatherstationdevice", "view_denial", "view_irrigationvalvedevice")
        guard.user_permissions.set(Permission.objects.filter(codename__in=names))
        client.force_login(guard)

        page = client.get(f"/denials/{found.pk}/").content.decode()
        assert "secret" in page
        assert "Nearest" not in page
        assert 'href="/simulator/' not in page

    def test_the_number_at_the_navigation_is_of_a_day(self, client, operator):
        denial()
        denial(topic="old", last_at=timezone.now() - timedelta(days=2))
        client.get("/denials/")

        page = client.get("/denials/").content.decode()
        assert '<span class="count bad">1</span>' in " ".join(page.split())

    def test_brokers_are_a_filter_for_those_who_may_see_them(self, client, operator):
        broker = Broker(name="orchard-main")
        broker.issue_token()
        broker.save()

        assert 'name="broker"' in client.get("/denials/").content.decode()
