"""The pages of rotations: progress, the two ends, another file, and the limits of their readers."""

from __future__ import annotations

import json
import re

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from authsvc.credentials import UNTIL_USED
from authsvc.models import AuditEntry, LastLogin
from devicehub import provisioning, roles
from devicehub.bulk import rotations
from devicehub.kinds.registry import registry
from devicehub.models import Rotation
from fleet.models import WeatherStationDevice
from rig.cast import provision
from rig.credential_pages import signed_in
from rig.people import person

pytestmark = [pytest.mark.django_db, pytest.mark.pages]
Stations = WeatherStationDevice.objects


@pytest.fixture
def cast():
    return {f"R-{n}": provision(f"R-{n}", site="north" if n < 3 else "south") for n in range(5)}


@pytest.fixture
def rotation(cast) -> Rotation:
    """Return a rotation whose file is written: R-0 is confirmed, R-1 still uses the old password."""
    found = begin()
    now = timezone.now()
    mark = Stations.get(device_id="R-0").password_mark
    LastLogin.objects.create(
        key="weatherstation/R-0", first_at=now, at=now, current_at=now, current_mark=mark
    )
    LastLogin.objects.create(key="weatherstation/R-1", first_at=now, at=now, previous_at=now)
    return found


def begin() -> Rotation:
    """Return a rotation of all stations, whose file is written."""
    found = rotations.start("spring", [(registry.get("weatherstation"), Stations.all())], until=UNTIL_USED)
    for _ in rotations.issue(found, found.members.all()):
        pass
    return Rotation.objects.get()


@pytest.fixture
def operator() -> Client:
    return signed_in(person("olga", roles.OPERATOR, is_staff=True))


def act(client: Client, url: str, name: str, **fields):
    page = client.post(url, {"do": name}).content.decode()
    hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page))
    return client.post(url, hidden | {"confirmed": "yes"} | fields)


def test_the_list_leads_to_each_rotation(operator, rotation):
    page = operator.get("/rotations/").content.decode()

    assert f'href="/rotations/{rotation.pk}/"' in page
    assert "spring" in page
    assert "in a list of devices with <em>Rotate credentials</em>" in page
    assert (
        "No rotation yet"
        in signed_in(person("new", roles.OPERATOR, ["west"], is_staff=True))
        .get("/rotations/")
        .content.decode()
    )


def test_the_list_counts_the_members_of_all_rotations_by_one_query(operator, rotation):
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            page = operator.get("/rotations/").content.decode()
        assert (
            re.findall(r'num third">(\d of \d) confirmed<', page)[::-1]
            == ["1 of 5", "0 of 5", "0 of 5"][: Rotation.objects.count()]
        )
        return len(captured)

    with_one = queries()
    for name in ("summer", "autumn"):
        rotations.start(name, [(registry.get("weatherstation"), Stations.all())], until=UNTIL_USED)

    assert queries() == with_one


def test_the_page_tells_new_from_old(operator, rotation):
    page = operator.get(f"/rotations/{rotation.pk}/").content.decode()

    assert re.search(r"Still on the old one</span><span class=\"value\"[^>]*>1<", page)
    assert "weatherstation/R-1" in page
    assert "weatherstation/R-0" not in page, "the list is of those still on the old password"
    assert "weatherstation/R-0" in operator.get(f"/rotations/{rotation.pk}/?state=confirmed").content.decode()


def test_the_members_are_paged_by_key(operator, rotation, monkeypatch):
    from devicehub.dashboard import rotations as pages

    monkeypatch.setattr(pages, "MEMBERS", 2)
    first = operator.get(f"/rotations/{rotation.pk}/?state=never").content.decode()
    (following,) = re.findall(r'rel="next" href="([^"]+)"', first)
    second = operator.get(f"/rotations/{rotation.pk}/{following.replace('&amp;', '&')}").content.decode()

    assert "R-2" in first
    assert "R-4" not in first
    assert "R-4" in second


def test_rolling_back_restores_those_not_confirmed(operator, rotation, cast):
    answer = act(operator, f"/rotations/{rotation.pk}/", "roll_back", reason="wrong file")

    assert answer.status_code == 302
    assert Stations.get(device_id="R-1").check_mqtt_password(cast["R-1"].password)
    assert not Stations.get(device_id="R-0").check_mqtt_password(cast["R-0"].password)
    assert AuditEntry.objects.filter(action="password_rolled_back", reason="wrong file").count() == 4
    page = operator.get(f"/rotations/{rotation.pk}/").content.decode()
    assert "Rolled back 4<" in page
    assert "Ended" not in page
    assert "Rolled back" in operator.get("/rotations/").content.decode()


def test_rolling_back_counts_only_devices_with_an_old_password(operator, cast):
    """R-1 was revoked before the rotation, so no old password of it exists."""
    now = timezone.now()
    LastLogin.objects.create(key="weatherstation/R-1", first_at=now, at=now, previous_at=now)
    provisioning.revoke(Stations.get(device_id="R-1"))
    begin()
    url = f"/rotations/{Rotation.objects.get().pk}/"

    asked = operator.post(url, {"do": "roll_back"}).content.decode()

    assert "Restore the old passwords of 4 devices?" in asked
    assert "Not counted, because they had none or it has ended: 1 device." in asked
    answer = act(operator, url, "roll_back")
    assert (
        "4 devices have their old passwords again"
        in operator.get(answer.headers["Location"]).content.decode()
    )
    page = operator.get(f"{url}?state=without_old").content.decode()
    assert re.search(r"Still on the old one</span><span class=\"value\"[^>]*>0<", page)
    assert re.search(r"No old password</span><span class=\"value\"[^>]*>1<", page)
    assert "weatherstation/R-1" in page
    assert "weatherstation/R-2" not in page


def test_rolling_back_is_not_offered_without_an_old_password(operator, cast):
    for device in Stations.all():
        provisioning.revoke(device)
    url = f"/rotations/{begin().pk}/"

    page = operator.get(url).content.decode()

    assert "Roll back" not in page
    assert "Rotate again" in page
    assert operator.post(url, {"do": "roll_back"}).status_code == 302


def test_the_pages_say_which_api_keys_an_act_leaves(operator, rotation):
    url = f"/rotations/{rotation.pk}/"
    assert "API key" not in operator.post(url, {"do": "roll_back"}).content.decode()
    Rotation.objects.update(api_keys=True)

    assert "The old API key becomes valid" in operator.post(url, {"do": "roll_back"}).content.decode()
    assert "API keys of an earlier file stay" in operator.post(url, {"do": "again"}).content.decode()
    answer = act(operator, url, "roll_back")
    assert "old passwords and API keys again" in operator.get(answer.headers["Location"]).content.decode()


def test_an_end_that_another_act_overtook_says_so(operator, rotation, monkeypatch):
    monkeypatch.setattr(rotations, "go_on", lambda *_: (_ for _ in ()).throw(rotations.Overtaken))

    answer = act(operator, f"/rotations/{rotation.pk}/", "roll_back")

    assert "This run stopped" in operator.get(answer.headers["Location"]).content.decode()
    rotation.refresh_from_db()
    assert rotation.ended_at is None


def test_finishing_says_how_many_are_late(operator, rotation, cast):
    page = operator.post(f"/rotations/{rotation.pk}/", {"do": "finish"}).content.decode()
    assert "End the old passwords of 5 devices now?" in page
    assert "4 devices of these did not log in with the new password yet" in page

    act(operator, f"/rotations/{rotation.pk}/", "finish")

    ended = operator.get(f"/rotations/{rotation.pk}/?state=finished").content.decode()
    assert "Ended by Finish now 5<" in ended
    assert re.findall(r">(confirmed|not confirmed)<", ended) == ["confirmed"] + ["not confirmed"] * 4
    assert "Ended by Finish now" in operator.get("/rotations/").content.decode()
    assert not Stations.exclude(previous_password_hash="").exists()


def test_finishing_counts_only_devices_whose_old_password_is_valid(operator, rotation, cast):
    """That of R-0, which is confirmed, ended with its first login, and that of R-1 by its date."""
    Stations.filter(device_id="R-0").update(previous_password_hash="", previous_valid_until=None)
    Stations.filter(device_id="R-1").update(previous_valid_until=timezone.now())
    url = f"/rotations/{rotation.pk}/"

    asked = operator.post(url, {"do": "finish"}).content.decode()

    assert "End the old passwords of 3 devices now?" in asked
    assert "3 devices of these did not log in" in asked
    assert "Not counted, because they had none or it has ended: 2 devices." in asked
    answer = act(operator, url, "finish")
    assert (
        "The old passwords of 3 devices have ended."
        in operator.get(answer.headers["Location"]).content.decode()
    )
    assert AuditEntry.objects.filter(action="overlap_ended").count() == 3
    assert not Stations.exclude(previous_password_hash="").exists()


def test_a_rotation_without_old_passwords_can_still_be_finished(operator, rotation, cast):
    Stations.update(previous_password_hash="", previous_valid_until=None)
    url = f"/rotations/{rotation.pk}/"

    asked = operator.post(url, {"do": "finish"}).content.decode()

    assert "Finish this rotation now?" in asked
    assert "so no password ends" in asked
    answer = act(operator, url, "finish")
    assert "The rotation is finished." in operator.get(answer.headers["Location"]).content.decode()
    rotation.refresh_from_db()
    assert rotation.ended_at is not None


def test_another_file_replaces_unused_passwords_once(operator, rotation, cast):
    answer = act(operator, f"/rotations/{rotation.pk}/", "again", file_format="json")

    assert "no-store" in answer.headers["Cache-Control"]
    issued = json.loads(b"".join(answer.streaming_content))
    assert {found["device_id"] for found in issued} == {"R-1", "R-2", "R-3", "R-4"}
    assert Stations.get(device_id="R-1").check_mqtt_password(issued[0]["mqtt_password"])


def test_progress_is_told_while_the_file_is_written(operator, rotation):
    Rotation.objects.update(written_at=None, touched_at=timezone.now())

    found = operator.get(f"/rotations/{rotation.pk}/progress/")

    assert found.json() == {
        "done": 5,
        "total": 5,
        "title": "The file is being written.",
        "text": "5 of 5 devices have new credentials.",
        "over": False,
    }
    assert "data-progress" in operator.get(f"/rotations/{rotation.pk}/").content.decode()
    assert operator.post(f"/rotations/{rotation.pk}/", {"do": "roll_back"}).status_code == 302
    Rotation.objects.update(written_at=timezone.now())
    complete = operator.get(f"/rotations/{rotation.pk}/progress/").json()
    assert (complete["title"], complete["over"]) == ("The file is complete.", True)


def test_a_part_without_old_passwords_is_finished_alone(rotation, cast):
    Stations.update(previous_password_hash="", previous_valid_until=None)
    northern = signed_in(person("mara", roles.OPERATOR, ["north"], is_staff=True))

    answer = act(northern, f"/rotations/{rotation.pk}/", "finish")

    page = northern.get(answer.headers["Location"]).content.decode()
    assert "Your part of the rotation is finished." in page
    assert Rotation.objects.get().ended_at is None


def test_a_limited_operator_sees_and_ends_their_part(rotation, cast):
    northern = signed_in(person("mara", roles.OPERATOR, ["north"], is_staff=True))

    page = northern.get(f"/rotations/{rotation.pk}/?state=never").content.decode()
    assert "R-2" in page
    assert "R-3" not in page
    act(northern, f"/rotations/{rotation.pk}/", "roll_back")

    assert Stations.get(device_id="R-2").check_mqtt_password(cast["R-2"].password)
    assert not Stations.get(device_id="R-3").check_mqtt_password(cast["R-3"].password)
    rotation.refresh_from_db()
    assert rotation.ended_at is None, "the southern part goes on"


def test_others_see_and_do_nothing(rotation, cast):
    western = signed_in(person("wim", roles.OPERATOR, ["west"], is_staff=True))
    viewer = signed_in(person("vera", roles.VIEWER, is_staff=True))
    nobody = signed_in(person("eve", None, is_staff=True))
    url = f"/rotations/{rotation.pk}/"

    assert western.get(url).status_code == western.post(url, {"do": "finish"}).status_code == 404
    assert western.get(url + "progress/").status_code == 404
    assert viewer.get(url).status_code == 200
    assert "Roll back" not in viewer.get(url).content.decode()
    for name in ("again", "finish", "roll_back"):
        assert viewer.post(url, {"do": name, "confirmed": "yes", "file_format": "csv"}).status_code == 403
    assert nobody.get(url).status_code == nobody.get("/rotations/").status_code == 403


def test_the_admin_has_the_same_pages(operator, rotation):
    listed = operator.get("/admin/devicehub/rotation/").content.decode()

    assert f'href="/admin/devicehub/rotation/{rotation.pk}/change/"' in listed
    url = f"/admin/devicehub/rotation/{rotation.pk}/change/"
    assert "weatherstation/R-1" in operator.get(url).content.decode()
    assert act(operator, url, "roll_back").headers["Location"] == url
    assert operator.get(f"/admin/devicehub/rotation/{rotation.pk}/progress/").json()["total"] == 5


def test_a_wrong_field_is_not_reported_as_a_wrong_number(operator, rotation):
    page = act(operator, f"/rotations/{rotation.pk}/", "finish", reason="x" * 301).content.decode()

    assert "at most 300 characters" in page
    assert "The number is not" not in page


def test_the_links_of_members_take_no_query_each(operator, rotation, django_assert_max_num_queries):
    with django_assert_max_num_queries(14):
        page = operator.get(f"/rotations/{rotation.pk}/?state=never").content.decode()

    assert page.count("/admin/fleet/weatherstationdevice/named/R-") >= 3


def test_a_member_that_was_removed_has_no_link(operator, rotation):
    Stations.filter(device_id="R-1").delete()

    page = operator.get(f"/rotations/{rotation.pk}/?state=changed").content.decode()

    assert '<span class="id">weatherstation/R-1</span>' in page
