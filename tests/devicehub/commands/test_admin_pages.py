"""Commands in the admin: the list, the page of a command, and cancellation."""

import re

from django.contrib.auth.models import Permission
from django.utils import timezone as clock
from django.utils.html import escape

from devicehub.models import DeviceCommand
from rig.command_queue import ACKNOWLEDGED, ANSWERED, CANCELLED, MINUTE, QUEUED, queue, the_command


def test_the_admin_shows_commands_and_cancels_queued_ones(admin_client, no_broker, said, station):
    page = "/admin/devicehub/devicecommand/"
    waiting, over = queue(station), queue(station, state=ANSWERED, due_at=None)

    assert "STATION-001" in admin_client.get(f"{page}?state=queued").content.decode()
    form = {"action": "cancel", "_selected_action": [str(waiting.id), str(over.id)]}
    answer = admin_client.post(page, form, follow=True).content.decode()

    assert "1 cancelled." in answer
    assert "1 not cancelled: it had ended, is being sent or may have arrived." in answer
    states = dict(DeviceCommand.objects.values_list("id", "state"))
    assert states == {waiting.id: CANCELLED, over.id: ANSWERED}


def change_page(client, command):
    return client.get(f"/admin/devicehub/devicecommand/{command.id}/change/").content.decode()


def test_the_page_of_a_command_says_all_of_it(admin_client, station):
    now = clock.now()
    waiting = queue(station, payload={"n": 42}, error="the device is away", due_at=now + MINUTE)
    untried = queue(station)
    over = queue(
        station, state=ANSWERED, due_at=None, answered_at=now, response={"ok": True, "result": {"°C": 21.5}}
    )

    page = change_page(admin_client, waiting)
    for text in (str(waiting.id), "the device is away", "Next attempt", "Deadline", "42"):
        assert text in page
    assert "not tried yet" in change_page(admin_client, untried)
    assert escape('{"°C": 21.5}') in change_page(admin_client, over)
    assert "not tried yet" in admin_client.get("/admin/devicehub/devicecommand/").content.decode()


def test_a_queued_command_is_cancelled_on_its_page(admin_client, station):
    waiting, sent = queue(station), queue(station, state=ACKNOWLEDGED)
    assert "Cancel this command" not in change_page(admin_client, sent)
    (form,) = re.findall(
        r'<form method="post" action="([^"]+)"[^>]*>(.*?)</form>', change_page(admin_client, waiting), re.S
    )
    assert "Cancel this command" in form[1]
    fields = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]+)"', form[1]))
    assert fields.pop("csrfmiddlewaretoken")

    answer = admin_client.post(form[0], fields, follow=True).content.decode()

    assert "1 cancelled." in answer
    waiting.refresh_from_db()
    assert waiting.state == CANCELLED


def test_who_may_only_look_cannot_cancel(client, django_user_model, station):
    reader = django_user_model.objects.create_user("reader", is_staff=True)
    rights = ("view_devicecommand", "view_weatherstationdevice")
    reader.user_permissions.set(Permission.objects.filter(codename__in=rights))
    client.force_login(reader)
    waiting = queue(station)
    page = change_page(client, waiting)
    assert str(waiting.id) in page
    assert "Cancel this command" not in page

    client.post(
        "/admin/devicehub/devicecommand/", {"action": "cancel", "_selected_action": [str(waiting.id)]}
    )

    assert the_command().state == QUEUED
