"""Users and groups in the admin: role, sites, and rights that only their owner can give."""

from __future__ import annotations

from unittest import mock

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.test import Client
from django_otp.plugins.otp_totp.models import TOTPDevice

from authsvc.models import AuditEntry
from devicehub import roles, second_factor, visibility
from devicehub.models import SiteScope
from devicehub.templatetags.devicehub_admin import dh_title
from fleet.models import WeatherStationDevice

pytestmark = [pytest.mark.django_db, pytest.mark.pages]


@pytest.fixture
def mara() -> User:
    return User.objects.create_user("mara", is_staff=True)


@pytest.fixture
def keeper() -> Client:
    """Return the client of a user who may change users and groups, and nothing else."""
    user = User.objects.create_user("keeper", is_staff=True)
    names = ("view_user", "change_user", "add_user", "delete_user", "change_group", "view_group")
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    client = Client()
    client.force_login(user)
    return client


def change(client: Client, user: User, **fields: object):
    form = {"username": user.username, "is_active": "on", "is_staff": "on", **fields}
    return client.post(f"/admin/auth/user/{user.pk}/change/", form)


def test_a_role_and_sites_are_set_in_one_form_and_recorded(admin_client, mara):
    WeatherStationDevice.objects.create(device_id="S-1", site="north")

    assert (
        change(admin_client, mara, role=roles.OPERATOR, is_limited="on", sites=["north"]).status_code == 302
    )

    mara = User.objects.get(username="mara")
    assert roles.of(mara) == roles.OPERATOR
    assert visibility.sites_of(mara) == {"north"}
    entries = AuditEntry.objects.filter(object_key="user/mara", actor="admin")
    recorded = [entry.after for entry in entries]
    assert {"roles": [roles.OPERATOR]} in recorded
    assert {"sites": ["north"]} in recorded
    page = admin_client.get(f"/admin/auth/user/{mara.pk}/change/").content.decode()
    assert f'value="{roles.OPERATOR}" class="dh-boxes" id="id_role_2" checked' in " ".join(page.split())

    assert change(admin_client, mara, role=roles.VIEWER).status_code == 302
    assert roles.of(User.objects.get(username="mara")) == roles.VIEWER
    assert not SiteScope.objects.exists()
    lifted = AuditEntry.objects.filter(object_key="user/mara", action="sites_changed").latest("pk")
    assert (lifted.before, lifted.after) == ({"sites": ["north"]}, None)


def test_a_save_of_the_form_without_a_change_records_nothing(admin_client, mara):
    fields = {"role": roles.OPERATOR, "groups": [Group.objects.create(name="Field crew").pk]}
    change(admin_client, mara, **fields)
    AuditEntry.objects.all().delete()

    assert change(admin_client, mara, **fields).status_code == 302

    assert not AuditEntry.objects.exists()
    assert {group.name for group in mara.groups.all()} == {roles.OPERATOR, "Field crew"}


def test_a_site_that_is_not_offered_is_written(admin_client, mara):
    WeatherStationDevice.objects.create(device_id="S-1", site="north")

    change(admin_client, mara, is_limited="on", sites=["north"], other_sites="east\n\nnorth")
    change(admin_client, mara, is_limited="on", sites=["north", "east"])

    assert visibility.sites_of(User.objects.get(username="mara")) == {"east", "north"}
    assert change(admin_client, mara, is_limited="on", sites=["nowhere"]).status_code == 200


@pytest.mark.parametrize("sites", [{"sites": ["north"]}, {"other_sites": "east"}])
def test_sites_without_a_limit_are_refused(admin_client, mara, sites):
    WeatherStationDevice.objects.create(device_id="S-1", site="north")

    answer = change(admin_client, mara, role=roles.VIEWER, **sites)

    assert list(answer.context["adminform"].form.errors) == ["is_limited"]
    assert roles.of(mara) == ""
    assert "This administration also needs Staff status" in answer.content.decode()


def test_other_groups_stay(admin_client, mara):
    field = Group.objects.create(name="Field crew")

    change(admin_client, mara, role=roles.VIEWER, groups=[field.pk])

    assert {group.name for group in mara.groups.all()} == {roles.VIEWER, "Field crew"}


@pytest.mark.parametrize(
    "fields", [{"role": roles.ADMINISTRATOR}, {"is_superuser": "on"}, {"user_permissions": True}]
)
def test_a_user_gives_no_right_that_they_lack(keeper, mara, fields):
    if "user_permissions" in fields:
        fields = {"user_permissions": [Permission.objects.get(codename="change_broker").pk]}
    change(keeper, mara, **fields)

    mara = User.objects.get(username="mara")
    assert (roles.of(mara), mara.is_superuser, mara.get_all_permissions()) == ("", False, set())


def test_a_user_changes_no_superuser_and_no_ready_role(keeper, admin_user):
    url = f"/admin/auth/user/{admin_user.pk}"
    new = {"password1": "a-new-password-1", "password2": "a-new-password-1", "usable_password": "true"}

    assert keeper.post(f"{url}/password/", new).status_code == 403
    assert keeper.post(f"{url}/delete/", {"post": "yes"}).status_code == 403
    keeper.post(
        "/admin/auth/user/", {"action": "delete_selected", "_selected_action": admin_user.pk, "post": "yes"}
    )
    assert User.objects.get(pk=admin_user.pk).password == admin_user.password
    viewer = Group.objects.get(name=roles.VIEWER)
    assert keeper.post(f"/admin/auth/group/{viewer.pk}/change/", {"name": "Else"}).status_code == 403


@pytest.mark.parametrize("fields", [{}, {"is_active": False}])
def test_a_user_changes_no_user_with_more_rights(keeper, mara, fields):
    """A new password or mail address would give them these rights."""
    roles.assign(mara, roles.ADMINISTRATOR, None)
    User.objects.filter(pk=mara.pk).update(**fields)
    url = f"/admin/auth/user/{mara.pk}"
    new = {"password1": "a-new-password-1", "password2": "a-new-password-1", "usable_password": "true"}

    assert keeper.post(f"{url}/password/", new).status_code == 403
    assert change(keeper, mara, email="keeper@example.org").status_code == 403
    assert keeper.post(f"{url}/delete/", {"post": "yes"}).status_code == 403
    keeper.post(
        "/admin/auth/user/", {"action": "delete_selected", "_selected_action": mara.pk, "post": "yes"}
    )
    after = User.objects.get(pk=mara.pk)
    assert (after.password, after.email, roles.of(after)) == (mara.password, "", roles.ADMINISTRATOR)


class TestRemovingASecondFactor:
    @staticmethod
    def give(user: User) -> str:
        """Give *user* a second factor, and return the address of its removal."""
        TOTPDevice.objects.create(user=user, name="Authenticator app", confirmed=True)
        return f"/admin/auth/user/{user.pk}/second-factor/"

    def test_a_page_asks_and_the_reason_stands_in_the_audit(self, keeper, mara):
        url = self.give(mara)
        page = f"/admin/auth/user/{mara.pk}/change/"
        assert url in keeper.get(page).content.decode()

        asked = keeper.post(url)
        assert "Remove the second factor of mara?" in asked.content.decode()
        assert second_factor.is_on(mara)
        long = keeper.post(url, {"confirmed": "yes", "reason": "x" * 301})
        assert "at most 300 characters" in long.content.decode()
        done = keeper.post(url, {"confirmed": "yes", "reason": "telephone lost"}, follow=True)

        assert not second_factor.is_on(mara)
        assert done.redirect_chain == [(page, 302)]
        assert [str(m) for m in done.context["messages"]] == ["mara signs in by password alone now."]
        assert url not in done.content.decode()
        entry = AuditEntry.objects.get(action="second_factor_removed")
        assert (entry.object_key, entry.actor, entry.reason) == ("user/mara", "keeper", "telephone lost")
        with mock.patch.object(second_factor, "is_on", return_value=True):  # Another removal was faster.
            late = keeper.post(url, {"confirmed": "yes"}, follow=True)
        assert [str(m) for m in late.context["messages"]] == ["mara has no second factor."]
        again = keeper.post(url, {"confirmed": "yes"}, follow=True)
        assert [str(m) for m in again.context["messages"]] == ["mara has no second factor."]
        assert AuditEntry.objects.filter(action="second_factor_removed").count() == 1

    def test_of_two_removals_at_once_one_is_recorded(self, mara):
        self.give(mara)

        for _ in range(2):
            second_factor.remove(mara)

        assert AuditEntry.objects.filter(action="second_factor_removed").count() == 1

    def test_only_who_may_change_the_user_removes_it(self, keeper, mara, admin_user):
        url = self.give(mara)
        viewer = User.objects.create_user("viewer", is_staff=True)
        viewer.user_permissions.set(Permission.objects.filter(codename="view_user"))
        reader = Client()
        reader.force_login(viewer)
        assert url not in reader.get(f"/admin/auth/user/{mara.pk}/change/").content.decode()
        roles.assign(mara, roles.ADMINISTRATOR, None)

        for client, user in ((reader, mara), (keeper, mara), (keeper, admin_user)):
            url = self.give(user)
            assert client.get(url).status_code == 403
            assert client.post(url, {"confirmed": "yes"}).status_code == 403
            assert second_factor.is_on(user)
        assert keeper.get("/admin/auth/user/999999/second-factor/").status_code == 404

    def test_nobody_removes_their_own_here_without_a_password(self, admin_client, admin_user):
        url = self.give(admin_user)

        assert url not in admin_client.get(f"/admin/auth/user/{admin_user.pk}/change/").content.decode()
        assert admin_client.post(url, {"confirmed": "yes"}).status_code == 403
        assert second_factor.is_on(admin_user)


def test_the_pages_of_people_say_their_role(admin_client, mara):
    roles.assign(mara, roles.VIEWER, ["north"])

    page = admin_client.get("/admin/auth/user/").content.decode()

    assert "Viewer" in page
    assert "north" in page
    assert admin_client.get("/admin/auth/user/add/").status_code == 200
    assert admin_client.get("/admin/auth/group/").status_code == 200
    assert dh_title("/admin/auth/group/", "groups") == "Roles"


def test_the_notices_of_people_are_ours(admin_client, mara):
    secret = "a new pass phrase"
    passwords = {"password1": secret, "password2": secret, "usable_password": "true"}

    added = admin_client.post("/admin/auth/user/add/", {"username": "lea", **passwords}, follow=True)
    changed = admin_client.post(f"/admin/auth/user/{mara.pk}/password/", passwords, follow=True)

    assert [str(m) for m in changed.context["messages"]] == ["Password of mara changed."]
    (notice,) = map(str, added.context["messages"])
    assert notice.startswith("User added: ")
