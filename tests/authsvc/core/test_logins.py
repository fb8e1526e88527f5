"""Logins and questions without a topic, decided with an in-memory directory: each reason, and what a login costs."""

from __future__ import annotations

import pytest

from authsvc.core import authority, passwords
from authsvc.core.access import (
    AmbiguousIdentity,
    Client,
    LoginQuestion,
    Principal,
    Reason,
    ResourceQuestion,
    Secret,
    SuperuserQuestion,
    TopicQuestion,
    Undecided,
    Verdict,
    account_key,
    deny,
)
from authsvc.core.authority import Rules
from authsvc.core.grants import Rule
from authsvc.core.memory import MemoryDirectory
from rig.coroutines import result

pytestmark = pytest.mark.sqlite_only  # needs no database

NOW = 1_000.0
RIGHT, WRONG = "right", "wrong"


class Verifier:
    """A stand-in for slow verification: a stored hash is the password itself, and each call is counted."""

    def __init__(self):
        self.calls = 0

    async def __call__(self, password, stored):
        self.calls += 1
        if stored == "unusable":
            raise passwords.UnusableHash(stored)
        if stored == "undecided":
            raise Undecided
        return password == stored


def station(*stored, key="station/S1", username="S1", client_ids=("S1",), **options):
    """Return a principal with the hashes *stored*, or secrets."""
    secrets = tuple(one if isinstance(one, Secret) else Secret(one) for one in stored)
    return Principal(key, username, secrets, client_ids=client_ids, **options)


def login(
    *principals, password=RIGHT, client_id="S1", username="S1", rules=None, verify=None, wants_rules=False
):
    """Return the verdict on a login as *username*."""
    question = LoginQuestion(Client(username, client_id), password, wants_rules)
    directory = MemoryDirectory(principals)
    return result(authority.decide(question, rules or Rules(), directory, lambda: NOW, verify or Verifier()))


def reason(verdict):
    [decision] = verdict.decisions
    assert decision.allowed is verdict.allowed
    return decision.reason


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ([RIGHT], Reason.CREDENTIALS),
        (["other"], Reason.WRONG_PASSWORD),
        ([], Reason.NO_PASSWORD),
        (["unusable"], Reason.UNUSABLE_HASH),
        (["other", RIGHT], Reason.CREDENTIALS),
        (["unusable", RIGHT], Reason.CREDENTIALS),
        (["undecided", RIGHT], Reason.CREDENTIALS),
        ([Secret(RIGHT, NOW + 1)], Reason.CREDENTIALS),
        ([Secret(RIGHT, NOW)], Reason.EXPIRED_PASSWORD),
        ([Secret(RIGHT, NOW - 1)], Reason.EXPIRED_PASSWORD),
        ([Secret(RIGHT, NOW), "other"], Reason.EXPIRED_PASSWORD),
        ([Secret("other", NOW - 1)], Reason.WRONG_PASSWORD),
    ],
)
def test_a_password_is_compared_with_each_secret(stored, expected):
    device = station(*stored)

    verdict = login(device)

    assert reason(verdict) is expected
    assert verdict.principal is device
    if expected is Reason.CREDENTIALS:
        assert verdict.secret == device.secrets[-1]
        assert verdict.rules is None
    else:
        assert verdict.secret is None


@pytest.mark.parametrize("stored", [["undecided"], ["other", "undecided"], ["undecided", "other"]])
def test_a_password_that_cannot_be_verified_now_is_a_fault(stored):
    with pytest.raises(Undecided):
        login(station(*stored))


@pytest.mark.parametrize(
    ("principals", "calls"),
    [
        ([station("other")], 2),
        ([station("other", "another")], 2),
        ([station()], 2),
        ([station(RIGHT, active=False)], 2),
        ([station(Secret(RIGHT, NOW))], 2),
        ([], 3),  # no row was read, which takes time too
        ([station("other"), station("other", key="valve/S1")], 2),
    ],
)
def test_every_refused_login_verifies_as_often(principals, calls):
    verify = Verifier()

    assert not login(*principals, verify=verify).allowed
    assert verify.calls == calls


def test_an_unusable_hash_costs_as_much_beside_its_own_attempt():
    verify = Verifier()

    login(station("unusable"), verify=verify)

    assert verify.calls == 3


def test_a_right_password_is_verified_once():
    verify = Verifier()

    assert login(station(RIGHT, "other"), verify=verify).allowed
    assert verify.calls == 1


@pytest.mark.parametrize(
    ("username", "principals", "expected"),
    [
        ("stranger", [], Reason.UNKNOWN_USERNAME),
        ("a/b", [], Reason.INVALID_USERNAME),
        ("guest", [], Reason.INVALID_USERNAME),
        ("S1", [station(RIGHT), station(RIGHT, key="valve/S1")], Reason.AMBIGUOUS_IDENTITY),
    ],
)
def test_a_login_without_a_principal_says_why(username, principals, expected):
    verdict = login(*principals, username=username)

    assert reason(verdict) is expected
    assert verdict.principal is None
    assert verdict.question.client.username == username


def test_a_disabled_principal_is_refused_whatever_the_password():
    device = station(RIGHT, active=False)

    for password in (RIGHT, WRONG):
        verdict = login(device, password=password)
        assert (reason(verdict), verdict.principal) == (Reason.DISABLED, device)


def test_a_password_over_the_limit_is_not_verified():
    verify = Verifier()

    assert reason(login(station("x"), password="x" * 4_097, verify=verify)) is Reason.PASSWORD_TOO_LONG
    assert reason(login(password="x" * 4_097, verify=verify)) is Reason.PASSWORD_TOO_LONG
    assert verify.calls == 0


@pytest.mark.parametrize(
    ("options", "client_id", "expected"),
    [
        ({}, "S1", Reason.CREDENTIALS),
        ({}, "S2", Reason.CLIENT_ID),
        ({}, None, Reason.CREDENTIALS),
        ({"client_ids": ()}, "S1", Reason.CLIENT_ID),
        ({"client_ids": None}, "anything", Reason.CREDENTIALS),
        ({"client_id_prefixes": ("S1-",)}, "S1-a", Reason.CREDENTIALS),
        ({"client_id_prefixes": ("S1-",)}, "a-S1-", Reason.CLIENT_ID),
    ],
)
def test_a_client_id_is_bound_to_its_principal(options, client_id, expected):
    device = station(RIGHT, **options)

    assert reason(login(device, client_id=client_id)) is expected
    assert login(device, client_id=client_id, rules=Rules(bind_client_ids=False)).allowed


def test_a_client_id_of_two_principals_is_refused_to_both():
    one = station(RIGHT)
    other = station(RIGHT, key="valve/V1", username="V1", client_ids=("V1", "S1"))

    for principal in (one, other):
        verdict = login(one, other, username=principal.username)
        assert (reason(verdict), verdict.principal) == (Reason.AMBIGUOUS_CLIENT_ID, principal)
    assert login(one, other, username="V1", client_id="V1").allowed
    assert login(one, other, rules=Rules(bind_client_ids=False)).allowed
    assert login(one, other, client_id=None).allowed


def test_an_account_keeps_a_client_id_that_a_device_has_too():
    device = station(RIGHT)
    account = station(
        RIGHT,
        key=account_key("backend"),
        username="backend",
        client_ids=("backend", "S1"),
        keeps_client_ids=True,
    )

    assert login(device, account, username="backend").allowed
    assert reason(login(device, account)) is Reason.AMBIGUOUS_CLIENT_ID


def test_accounts_share_a_client_id_but_not_the_username_of_one_of_them():
    def account(name):
        listed = (name, "shared", "first")
        return station(RIGHT, key=account_key(name), username=name, client_ids=listed, keeps_client_ids=True)

    both = account("first"), account("second")

    assert login(*both, username="second", client_id="shared").allowed
    assert login(*both, username="first", client_id="first").allowed
    assert reason(login(*both, username="second", client_id="first")) is Reason.AMBIGUOUS_CLIENT_ID


def test_an_account_that_claims_no_client_id_does_not_keep_it():
    """A prefix allows it to connect, but a device that lists this client id is a rival."""
    account = station(
        RIGHT,
        key=account_key("backend"),
        username="backend",
        client_ids=("backend",),
        client_id_prefixes=("S",),
        keeps_client_ids=True,
    )

    assert login(account, username="backend").allowed
    assert reason(login(account, station(RIGHT), username="backend")) is Reason.AMBIGUOUS_CLIENT_ID


def test_a_broker_that_holds_rules_is_given_those_of_the_client():
    rules = Rules(grants={"everyone": (Rule("all/{username}"),), "type:pump": (Rule("pumps"),)})
    device = station(
        RIGHT, grants=(Rule("own/{client_id}"), Rule("none/{prefix}")), attributes={"type": "pump"}
    )

    held = login(device, rules=rules, wants_rules=True).rules

    assert held is not None
    assert [rule.filter for rule in held] == ["own/S1", "all/S1", "pumps"]
    assert login(device, rules=rules).rules is None
    assert login(station(RIGHT, superuser=True), rules=rules, wants_rules=True).rules is None


def test_grants_are_found_by_everyone_by_type_and_by_key():
    rules = Rules(
        grants={
            "everyone": (Rule("a"),),
            "type:pump": (Rule("b"),),
            "type:": (Rule("wrong"),),
            "type:None": (Rule("wrong"),),
            "key:station/S1": (Rule("c"),),
            "key:station/S2": (Rule("wrong"),),
        }
    )

    def filters(**options):
        return [rule.filter for rule in rules.of(station(grants=(Rule("own"),), **options))]

    assert filters(attributes={"type": "pump"}) == ["own", "a", "b", "c"]
    assert filters() == ["own", "a", "c"]
    assert [rule.filter for rule in Rules().of(station(grants=(Rule("own"),)))] == ["own"]


# Questions after the login.


@pytest.mark.parametrize(
    ("options", "client", "expected"),
    [
        ({"active": False}, Client("S1", "S1"), Reason.DISABLED),
        ({"revoked": True}, Client("S1", "S1"), Reason.REVOKED),
        ({}, Client("S1", "S2"), Reason.CLIENT_ID),
        ({"version": 2}, Client("S1", "S1", version=1), Reason.REVOKED_TOKEN),
        ({"version": 2}, Client("S1", "S1", version=3), Reason.REVOKED_TOKEN),
        ({"version": 2}, Client("S1", "S1", version=2), None),
        ({"version": 2}, Client("S1", "S1"), None),
        ({}, Client("S2", "S1"), Reason.UNKNOWN_USERNAME),
    ],
)
def test_a_connected_client_is_refused_for_the_same_reasons(options, client, expected):
    device = station(RIGHT, superuser=True, **options)
    questions = [
        SuperuserQuestion(client),
        TopicQuestion(client, authority.Action.PUBLISH, ["a", "b"]),
        ResourceQuestion(client, "vhost /", shared=True),
    ]

    for question in questions:
        verdict = result(authority.decide(question, Rules(), MemoryDirectory([device])))
        assert verdict.allowed is (expected is None)
        assert verdict.question is question
        if expected is not None:
            assert {decision.reason for decision in verdict.decisions} == {expected}
            assert len(verdict.decisions) == (2 if isinstance(question, TopicQuestion) else 1)
        assert verdict.principal is (None if expected is Reason.UNKNOWN_USERNAME else device)


@pytest.mark.parametrize(("superuser", "expected"), [(True, Reason.SUPERUSER), (False, Reason.NOT_SUPERUSER)])
def test_a_superuser_is_one(superuser, expected):
    device = station(superuser=superuser)

    verdict = result(
        authority.decide(SuperuserQuestion(Client("S1", None)), Rules(), MemoryDirectory([device]))
    )

    assert verdict == Verdict(((superuser, expected, "", ""),), device, SuperuserQuestion(Client("S1", None)))


@pytest.mark.parametrize(
    ("superuser", "shared", "expected"),
    [
        (False, True, (True, Reason.SHARED_RESOURCE)),
        (True, True, (True, Reason.SHARED_RESOURCE)),
        (True, False, (True, Reason.SUPERUSER)),
        (False, False, (False, Reason.FOREIGN_RESOURCE)),
    ],
)
def test_a_resource_is_shared_or_of_superusers(superuser, shared, expected):
    question = ResourceQuestion(Client("S1", "S1"), "queue q", shared)

    verdict = result(authority.decide(question, Rules(), MemoryDirectory([station(superuser=superuser)])))

    assert verdict.decisions == ((*expected, "queue q", ""),)


def test_a_decision_on_a_topic_names_its_grant():
    device = station(grants=(Rule("a", name="first"), Rule("b", allow=False, name="second")))
    question = TopicQuestion(Client("S1", "S1"), authority.Action.PUBLISH, ["a", "b", "c", "+"])

    verdict = result(authority.decide(question, Rules(), MemoryDirectory([device])))

    assert not verdict.allowed
    assert verdict.decisions == (
        (True, Reason.GRANT, "a", "first"),
        (False, Reason.DENY_GRANT, "b", "second"),
        (False, Reason.NO_GRANT, "c", ""),
        (False, Reason.WILDCARD_PUBLISH, "+", ""),
    )


def test_a_word_that_is_not_an_action_is_malformed():
    question = TopicQuestion(Client("S1", "S1"), "publish", ["a"])

    verdict = result(authority.decide(question, Rules(), MemoryDirectory([station(superuser=True)])))

    assert verdict.decisions == ((False, Reason.MALFORMED, "a", ""),)


# Verdicts.


def test_a_deny_refuses_each_topic():
    client = Client("S1", "S1")
    topics = TopicQuestion(client, authority.Action.SUBSCRIBE, ["a", "b"])
    none = TopicQuestion(client, authority.Action.SUBSCRIBE, [])
    resource = ResourceQuestion(client, "vhost /", shared=False)
    device = station()

    assert deny(Reason.REVOKED, device, topics) == Verdict(
        ((False, Reason.REVOKED, "a", ""), (False, Reason.REVOKED, "b", "")), device, topics
    )
    assert deny(Reason.REVOKED, device, none) == Verdict(((False, Reason.REVOKED, "", ""),), device, none)
    assert deny(Reason.REVOKED, None, resource) == Verdict(
        ((False, Reason.REVOKED, "vhost /", ""),), None, resource
    )
    assert deny(Reason.REVOKED) == Verdict(((False, Reason.REVOKED, "", ""),))


def test_a_verdict_allows_only_if_every_decision_does():
    yes, no = (authority.Decision(allowed, Reason.GRANT) for allowed in (True, False))

    assert Verdict((yes,)).allowed is True
    assert Verdict((yes, yes)).allowed is True
    assert Verdict((yes, no)).allowed is False
    assert Verdict((no, yes)).allowed is False
    assert Verdict(()).allowed is False


def test_no_secret_is_shown():
    shown = repr([LoginQuestion(Client("S1", "S1"), "s3cret"), Secret("s3cret", 5.0), station("s3cret")])

    assert "s3cret" not in shown
    assert "valid_until=5.0" in shown


def test_the_directory_in_memory_finds_principals_and_claimants():
    device, unbound = station(), station(key="account/x", username="x", client_ids=None)
    directory = MemoryDirectory([device, unbound, station(key="valve/S1")])

    assert result(directory.lookup("x")) is unbound
    assert result(directory.lookup("y")) is None
    assert result(directory.claimants("S1")) == {"station/S1", "valve/S1"}
    assert result(directory.claimants("x")) == set()
    with pytest.raises(AmbiguousIdentity):
        result(directory.lookup("S1"))
    assert result(MemoryDirectory().lookup("S1")) is None
