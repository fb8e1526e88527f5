"""The forms of grants and groups: choices that exist, previews, records, and nothing for people limited to sites."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission, User

from authsvc.models import AuditEntry, Grant
from devicehub import provisioning
from devicehub.models import DeviceGroup, SiteScope
from rig.cast import provision

pytestmark = [pytest.mark.django_db, pytest.mark.pages]

GRANTS, GROUPS = "/admin/authsvc/grant", "/admin/devicehub/devicegroup"
ONE = "weatherstation/S-1"


@pytest.fixture
def fleet():
    provision("S-1", site="mill", name="Roof of the mill")
    provision("S-2", site="barn")
    provisioning.create_account("backend")
    provisioning.create_group("mill", "Mill", sites=["mill"])


@pytest.fixture
def admin(client, fleet):
    client.force_login(User.objects.create_superuser("root"))
    return client


def person(client, *permissions, sites=None):
    """Log in a user with *permissions*, who is limited to *sites* unless they are None."""
    user = User.objects.create_user("mara", is_staff=True)
    for name in permissions:
        label, codename = name.split(".")
        user.user_permissions.add(Permission.objects.get(content_type__app_label=label, codename=codename))
    if sites is not None:
        SiteScope.objects.create(user=user, sites=sites)
    client.force_login(user)
    return client


def fields(**more):
    period = {f"valid_{name}_{part}": "" for name in ("from", "until") for part in (0, 1)}
    return {"effect": "allow", "actions": ["publish"], "filter": "news/#", "note": "", **period, **more}


@pytest.mark.parametrize(
    ("given", "subject"),
    [
        ({"kind": "everyone"}, "everyone"),
        ({"kind": "type", "type": "weatherstation", "device": "left over"}, "type:weatherstation"),
        ({"kind": "group", "group": "mill"}, "group:mill"),
        ({"kind": "device", "device": ONE}, f"key:{ONE}"),
        ({"kind": "device", "device": "S-1"}, f"key:{ONE}"),
        ({"kind": "account", "account": "backend"}, "key:account/backend"),
    ],
)
def test_a_subject_is_chosen(admin, given, subject):
    reply = admin.post(f"{GRANTS}/add/", fields(**given, actions=["receive", "publish"]))

    assert reply.status_code == 302, reply.context["errors"]
    grant = Grant.objects.get()
    assert (grant.subject, grant.actions) == (subject, "publish,receive")
    assert [entry.action for entry in AuditEntry.objects.filter(object_key=f"grant/{grant.pk}")] == [
        "grant_created"
    ]
    page = admin.get(f"{GRANTS}/{grant.pk}/change/")
    assert page.context["adminform"].form.initial["actions"] == ["publish", "receive"]
    unchanged = admin.post(f"{GRANTS}/{grant.pk}/change/", fields(**given, actions=["publish", "receive"]))
    assert unchanged.status_code == 302
    assert Grant.objects.get().subject == subject


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"kind": "type", "type": "nosuch"}, "type"),
        ({"kind": "type", "type": ""}, "type"),
        ({"kind": "group", "group": "nosuch"}, "group"),
        ({"kind": "device", "device": "weatherstation/NOSUCH"}, "device"),
        ({"kind": "device", "device": "account/backend"}, "device"),
        ({"kind": "device", "device": "NOSUCH"}, "device"),
        ({"kind": "account", "account": "nosuch"}, "account"),
        ({"kind": ""}, "kind"),
        ({"kind": "everyone", "actions": []}, "actions"),
        ({"kind": "everyone", "filter": "a/{device}"}, "filter"),
        ({"kind": "everyone", "filter": "taken"}, "__all__"),
        (
            {
                "kind": "everyone",
                "valid_from_0": "2030-01-02",
                "valid_from_1": "00:00",
                "valid_until_0": "2030-01-01",
                "valid_until_1": "00:00",
            },
            "__all__",
        ),
    ],
)
def test_a_grant_that_cannot_be_is_refused_beside_its_field(admin, given, field):
    Grant.objects.create(subject="everyone", actions="publish", filter="taken")

    reply = admin.post(f"{GRANTS}/add/", fields(**given))

    assert reply.status_code == 200
    assert field in reply.context["adminform"].form.errors
    assert Grant.objects.count() == 1


@pytest.mark.parametrize(("zone", "day"), [("America/New_York", "9999-12-31"), ("Asia/Tokyo", "0001-01-01")])
def test_a_period_lies_in_the_calendar_of_every_zone(admin, settings, zone, day):
    settings.TIME_ZONE = zone
    period = {"valid_until_0": day, "valid_until_1": "23:59" if day > "1" else "00:00"}

    reply = admin.post(f"{GRANTS}/add/", fields(kind="everyone", **period))

    assert reply.context["adminform"].form.errors == {"valid_until": ["Write a year from 2 to 9998."]}
    assert reply.status_code == 200
    assert not Grant.objects.exists()


def test_a_change_and_a_deletion_are_recorded_once(admin):
    grant = Grant.objects.create(subject="everyone", actions="all", filter="a")
    admin.post(f"{GRANTS}/{grant.pk}/change/", fields(kind="everyone", filter="b"))
    admin.post(f"{GRANTS}/{grant.pk}/delete/", {"post": "yes"})

    changed, deleted = AuditEntry.objects.filter(object_key=f"grant/{grant.pk}").order_by("pk")
    assert changed.after == {"actions": "publish", "filter": "b"}
    assert deleted.action == "grant_deleted"
    assert not Grant.objects.exists()


def test_a_link_fills_the_form_in(admin):
    page = admin.get(f"{GRANTS}/add/?subject=key:account/backend&actions=subscribe&filter=x")

    initial = page.context["adminform"].form.initial
    assert (initial["kind"], initial["account"], initial["actions"]) == ("account", "backend", ["subscribe"])
    assert b"{device_id}" in page.content


def test_the_preview_lists_topics_and_counts(admin):
    for headers in ({}, {"x-requested-with": "fetch"}):
        reply = admin.post(
            f"{GRANTS}/add/preview/",
            fields(kind="type", type="weatherstation", filter="{prefix}/+/{device_id}/data"),
            headers=headers,
        )
        text = reply.content.decode()
        assert "This opens" in text
        assert "2 devices" in text
        assert "things/+/S-1/data" in text
        assert "things/weatherstation/S-1/data" in text
        assert "no-store" in reply["Cache-Control"]
    assert not Grant.objects.exists()
    wrong = admin.post(f"{GRANTS}/add/preview/", fields(kind="device", device="NOSUCH"))
    assert b"not the key of a device" in wrong.content
    missing = admin.post(f"{GRANTS}/add/preview/", {"kind": "everyone"}).content.decode()
    assert "<b>Actions</b> Choose at least one action." in missing


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"kind": "everyone"}, "2 devices and 1 account"),
        ({"kind": "group", "group": "mill"}, "1 device:"),
        ({"kind": "account", "account": "backend", "filter": "{device_id}"}, "a placeholder has no value"),
        ({"kind": "device", "device": ONE, "effect": "deny"}, "This refuses"),
    ],
)
def test_the_preview_of_each_subject(admin, given, expected):
    reply = admin.post(f"{GRANTS}/add/preview/", fields(**given))

    assert expected in " ".join(reply.content.decode().replace("</b>", "").split()).replace(" :", ":")


def suggested(client, query, page=GRANTS):
    reply = client.get(f"{page}/add/suggest/?{query}")
    assert "no-store" in reply["Cache-Control"]
    return [one["value"] for one in reply.json()["results"]]


def test_suggestions_are_bounded_and_by_name_too(admin):
    assert suggested(admin, "kind=device&q=roof") == [ONE]
    assert suggested(admin, "kind=device&q=weatherstation/S-2") == ["weatherstation/S-2"]
    assert suggested(admin, "kind=account&q=back") == ["backend"]
    assert suggested(admin, "kind=other&q=") == []
    assert suggested(admin, "kind=device&q=s-1", GROUPS) == [ONE]
    for number in range(30):
        provision(f"M-{number}")
    assert len(suggested(admin, "kind=device&q=M-")) == 20


def test_a_group_of_chosen_members(admin):
    reply = admin.post(
        f"{GROUPS}/add/",
        {
            "slug": "two",
            "name": "Two",
            "note": "",
            "how": "chosen",
            "members": f"{ONE}\r\nS-2\r\n",
            "sites": ["mill"],
        },
    )

    assert reply.status_code == 302, reply.context["errors"]
    group = DeviceGroup.objects.get(slug="two")
    assert not group.has_filter
    assert provisioning.count_members(group) == 2
    admin.post(f"{GROUPS}/{group.pk}/change/", {"name": "One", "note": "", "how": "chosen", "members": "S-2"})
    assert provisioning.count_members(group) == 1
    assert list(
        AuditEntry.objects.filter(object_key="group/two").order_by("pk").values_list("action", flat=True)
    ) == [
        "group_created",
        "group_changed",
        "group_changed",
        "group_changed",
    ]


def test_a_group_by_filter_counts_before_it_is_saved(admin):
    given = {"slug": "barn", "name": "Barn", "note": "", "how": "filter", "sites": ["barn", "mill"]}
    assert b"2 devices" in admin.post(f"{GROUPS}/add/preview/", given).content
    assert admin.post(f"{GROUPS}/add/", given).status_code == 302
    group = DeviceGroup.objects.get(slug="barn")
    assert provisioning.count_members(group) == 2
    Grant.objects.create(subject="group:barn", actions="all", filter="a")

    assert b"site barn, mill" in admin.get(f"{GROUPS}/").content
    admin.post(f"{GROUPS}/", {"action": "delete_selected", "_selected_action": [group.pk], "post": "yes"})
    assert not Grant.objects.exists()


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"how": "chosen", "members": "NOSUCH"}, "members"),
        ({"how": "chosen", "members": "weatherstation/NOSUCH"}, "members"),
        ({"how": "filter"}, "types"),
        ({"how": "filter", "sites": ["nowhere"]}, "sites"),
        ({"how": "chosen", "slug": "Roof/1"}, "slug"),
        ({}, "how"),
    ],
)
def test_a_group_that_cannot_be_is_refused_beside_its_field(admin, given, field):
    reply = admin.post(f"{GROUPS}/add/", {"slug": "roof", "name": "Roof", "note": "", **given})

    assert reply.status_code == 200
    assert field in reply.context["adminform"].form.errors


def test_the_count_of_a_group_names_wrong_fields_by_their_labels(admin):
    for given, shown in (
        ({"how": "chosen", "members": "NOSUCH"}, "<b>Devices</b> Not the id of one device"),
        ({"how": "filter"}, "<b>Types</b> Check at least one"),
    ):
        assert shown in admin.post(f"{GROUPS}/add/preview/", given).content.decode()


ALL = [
    f"{verb}_{model}" for model in ("grant", "devicegroup") for verb in ("view", "add", "change", "delete")
]
PERMISSIONS = [f"{'authsvc' if name.endswith('grant') else 'devicehub'}.{name}" for name in ALL]


def urls():
    grant = Grant.objects.create(subject="everyone", actions="all", filter="a")
    group = DeviceGroup.objects.get(slug="mill")
    for page, pk in ((GRANTS, grant.pk), (GROUPS, group.pk)):
        yield f"{page}/"
        for name in ("", "suggest/?kind=device", "preview/"):
            yield f"{page}/add/{name}"
            yield f"{page}/{pk}/change/{name}"
        yield f"{page}/{pk}/delete/"
        yield f"{page}/{pk}/history/"


def test_people_limited_to_sites_reach_neither_grants_nor_groups(client, fleet):
    person(client, *PERMISSIONS, "fleet.view_weatherstationdevice", sites=["mill"])

    for url in urls():
        for reply in (client.get(url), client.post(url, fields(kind="everyone", post="yes"))):
            assert reply.status_code in (302, 403, 405), url
            assert "mill" not in reply.content.decode().lower(), url
    assert Grant.objects.count() == 1
    assert DeviceGroup.objects.count() == 1


def test_a_viewer_reads_and_writes_nothing(client, fleet):
    person(client, "authsvc.view_grant", "devicehub.view_devicegroup")

    assert client.get(f"{GRANTS}/").status_code == 200
    for url in (f"{GRANTS}/add/", f"{GRANTS}/add/preview/", f"{GROUPS}/add/", f"{GROUPS}/add/preview/"):
        assert client.post(url, fields(kind="everyone")).status_code == 403
    assert client.get(f"{GRANTS}/add/suggest/?kind=device").status_code == 403


def test_suggestions_hold_only_devices_that_the_writer_may_see(client, fleet):
    person(client, "authsvc.add_grant")

    assert suggested(client, "kind=device&q=") == []
    assert suggested(client, "kind=account&q=") == []


def test_the_list_names_each_subject_in_words(admin):
    for subject in ("key:weatherstation/STATION-001", "type:irrigationvalve", "key:account/backend"):
        Grant.objects.create(subject=subject, actions="publish", filter="plant/1")

    page = admin.get(f"{GRANTS}/").content.decode()

    for words in ("Device weatherstation/STATION-001", "Every irrigationvalve", "Service account “backend”"):
        assert f">{words}</a>" in page
    assert "key:weatherstation" not in page
    found = admin.get(f"{GRANTS}/?q=irrigationvalve").content.decode()
    assert "Every irrigationvalve" in found
    assert "Service account “" not in found


def test_the_list_hides_the_grants_of_ingest_accounts_and_says_how_many(admin):
    account, _ = provisioning.create_account("ingest")
    made = provisioning.grant_ingest(account)
    noted = Grant.objects.create(
        subject="everyone", actions="publish", filter="a/b", note=provisioning.INGEST_NOTE
    )
    own = Grant.objects.create(
        subject=f"key:{account.key}", actions="publish", filter="a/c", note="for tests"
    )
    wide = Grant.objects.create(
        subject=f"key:{account.key}", actions="all", filter="#", note=provisioning.INGEST_NOTE
    )

    def shown(query):
        page = admin.get(f"{GRANTS}/?{query}")
        return set(page.context["cl"].queryset), " ".join(page.content.decode().split())

    rows, page = shown("")
    assert rows == {noted, own, wide}, "a note of a person alone hides nothing"
    assert f'{made} grants of ingest accounts are hidden. <a href="?made=all">Show them</a>' in page
    rows, page = shown("made=all")
    assert (len(rows), "are hidden" in page) == (made + 3, False)
    assert len(shown("made=ingest")[0]) == made

    one = Grant.objects.filter(
        note=provisioning.INGEST_NOTE, actions="publish", filter__contains="weather"
    ).first()
    rows, page = shown(f"q={one.filter}")
    assert rows == set()
    assert "1 grant of ingest accounts is hidden" in page, "a search says what it would find"
    assert shown(f"id={one.pk}")[0] == {one}, "a link to one row, such as that of the audit"
    account_page = admin.get(f"/admin/authsvc/account/{account.pk}/change/").content.decode()
    assert f"/admin/authsvc/grant/?made=all&amp;q=key:{account.key}" in account_page
