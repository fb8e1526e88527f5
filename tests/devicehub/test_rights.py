"""Changes of users, roles and sites leave entries in the audit, whichever page or program makes them."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import Group, Permission, User
from django.core.management import call_command
from django.db import OperationalError
from django.urls import reverse

from authsvc.models import AuditEntry
from devicehub import rights, roles
from devicehub.models import SiteScope
from rig.people import person

pytestmark = pytest.mark.django_db


def entries():
    """Return and delete the entries, as action, object and values."""
    rows = list(AuditEntry.objects.order_by("pk"))
    AuditEntry.objects.all().delete()
    return [(row.action, row.object_key, row.before, row.after) for row in rows]


def test_a_user_is_recorded_from_the_first_day_to_the_last():
    call_command("createsuperuser", username="mara", email="", interactive=False, verbosity=0)
    user = User.objects.get()
    user.is_staff = False
    user.save()
    user.set_password("a long enough password")
    user.save()
    user.delete()

    created, demoted, password, deleted = entries()
    assert created[:2] == ("user_created", "user/mara")
    assert created[3]["is_superuser"] is True
    assert demoted == ("user_changed", "user/mara", {"is_staff": True}, {"is_staff": False})
    assert password == ("user_password_changed", "user/mara", None, None)
    assert deleted[:2] == ("user_deleted", "user/mara")


def test_a_password_that_is_saved_alone_is_a_change_and_a_better_hash_is_none(settings):
    user = person("mara", password="a long enough password")
    entries()

    user.set_password("another long password")
    user.save(update_fields=["password"])
    changed = entries()
    settings.PASSWORD_HASHERS = [
        *settings.PASSWORD_HASHERS,
        f"{PBKDF2PasswordHasher.__module__}.PBKDF2PasswordHasher",
    ]
    older = PBKDF2PasswordHasher().encode("another long password", "salt", iterations=1)
    User.objects.update(password=older)
    user = User.objects.get()
    assert user.check_password("another long password")
    assert user.password != older

    assert changed == [("user_password_changed", "user/mara", None, None)]
    assert entries() == []


def test_only_what_is_saved_is_recorded():
    user = person("mara")
    entries()
    user.email, user.is_superuser = "mara@example.org", True

    user.save(update_fields=["email"])

    assert entries() == [("user_changed", "user/mara", {"email": ""}, {"email": "mara@example.org"})]
    user.set_password("a long enough password")
    user.save(update_fields=["email"])
    assert entries() == []


def test_a_sign_in_is_no_change(client):
    user = person("mara", password="a long enough password")
    entries()

    client.force_login(user)

    assert entries() == []


def test_roles_are_recorded_from_both_sides():
    user, operators = person("joe", role=None), Group.objects.get(name=roles.OPERATOR)
    entries()

    user.groups.add(operators)
    operators.user_set.remove(user)
    user.groups.set([operators])
    user.groups.clear()

    given, taken = {"roles": [roles.OPERATOR]}, {"roles": [roles.OPERATOR]}
    assert entries() == [
        ("user_changed", "user/joe", None, given),
        ("user_changed", "user/joe", taken, None),
        ("user_changed", "user/joe", None, given),
        ("user_changed", "user/joe", taken, None),
    ]


def test_permissions_of_a_role_are_recorded():
    role = Group.objects.create(name="Night shift")
    role.permissions.add(Permission.objects.get(codename="change_grant"))
    role.name = "Late shift"
    role.save()
    role.delete()

    assert entries() == [
        ("role_created", "role/Night shift", None, {"name": "Night shift"}),
        ("role_changed", "role/Night shift", None, {"permissions": ["authsvc.change_grant"]}),
        ("role_changed", "role/Late shift", {"name": "Night shift"}, {"name": "Late shift"}),
        ("role_deleted", "role/Late shift", {"name": "Late shift"}, None),
    ]


def test_sites_of_a_user_are_recorded():
    user = person("joe", sites=["north"])
    entries()

    scope = SiteScope.objects.get()
    scope.sites = ["south"]
    scope.save()
    scope.delete()

    assert entries() == [
        ("sites_changed", "user/joe", {"sites": ["north"]}, {"sites": ["south"]}),
        ("sites_changed", "user/joe", {"sites": ["south"]}, None),
    ]
    roles.assign(user, roles.VIEWER, ["south"])
    entries()
    roles.assign(user, roles.VIEWER, None)
    assert entries() == [("sites_changed", "user/joe", {"sites": ["south"]}, None)]


@pytest.mark.parametrize("delete", [User.delete, lambda user: User.objects.filter(pk=user.pk).delete()])
def test_the_sites_of_a_deleted_user_end_with_the_user(delete):
    user = person("joe", sites=["north"])
    entries()

    delete(user)

    assert [entry[0] for entry in entries()] == ["user_deleted"]


def test_an_assignment_records_what_it_changed():
    user = person("joe", role=None)
    entries()

    for role in (roles.VIEWER, roles.VIEWER, roles.OPERATOR, ""):
        roles.assign(user, role, None)

    given = [("user_changed", "user/joe", None, {"roles": [role]}) for role in (roles.VIEWER, roles.OPERATOR)]
    taken = [("user_changed", "user/joe", {"roles": [role]}, None) for role in (roles.VIEWER, roles.OPERATOR)]
    assert entries() == [given[0], taken[0], given[1], taken[1]]


def test_setting_the_roles_again_records_nothing_and_undoes_changes():
    viewers = Group.objects.get(name=roles.VIEWER)
    expected = set(viewers.permissions.values_list("codename", flat=True))
    viewers.permissions.clear()
    entries()

    roles.install()

    assert entries() == []
    assert set(viewers.permissions.values_list("codename", flat=True)) == expected


def test_the_form_of_a_user_records_its_change(client, monkeypatch):
    user = person("joe")
    client.force_login(person("mara", is_staff=True, is_superuser=True))
    entries()
    password = reverse("admin:auth_user_password_change", args=[user.pk])

    fields = {"password1": "a long enough one", "password2": "a long enough one", "usable_password": "true"}

    client.post(password, fields)

    assert entries() == [("user_password_changed", "user/joe", None, None)]
    monkeypatch.setattr(rights.audit, "record", Mock(side_effect=OperationalError))
    before = User.objects.get(pk=user.pk).password
    with pytest.raises(OperationalError):
        client.post(password, fields)
    assert User.objects.get(pk=user.pk).password == before, "change and entry are one commit"
