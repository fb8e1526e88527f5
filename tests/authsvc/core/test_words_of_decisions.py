"""The words that leave the decision: reason codes, actions and usernames. Operators and brokers rely on them."""

from __future__ import annotations

import pytest

from authsvc.core.access import (
    ACCOUNT,
    Action,
    Client,
    ExpiredToken,
    InvalidToken,
    LoginQuestion,
    MalformedRequest,
    Principal,
    Reason,
    Refused,
    account_key,
    is_username,
)
from authsvc.core.grants import PLACEHOLDERS, WORDS, ActionSet, Grant, Rule

pytestmark = pytest.mark.sqlite_only  # needs no database


def test_a_reason_code_is_its_name():
    assert {reason.name: reason.value for reason in Reason} == {
        reason.name: reason.name.lower() for reason in Reason
    }


def test_actions_are_the_words_of_mqtt():
    assert [action.value for action in Action] == ["publish", "subscribe", "receive"]
    assert WORDS == ("publish", "subscribe", "receive")
    assert [actions.value for actions in ActionSet] == [
        *("publish", "subscribe", "receive", "all"),
        *("publish,subscribe", "publish,receive", "subscribe,receive"),
    ]


@pytest.mark.parametrize("actions", ActionSet)
def test_a_set_of_actions_applies_to_its_words(actions):
    rule = Rule("a", actions)

    assert ActionSet.of(reversed(actions.words)) is actions
    assert [action.value for action in Action if rule.applies_to(action)] == list(actions.words)


@pytest.mark.parametrize("actions", [[], ["all"], ["publish", ""], ["publish,subscribe"]])
def test_a_set_of_other_words_is_refused(actions):
    with pytest.raises(ValueError):
        ActionSet.of(actions)


def test_an_error_has_the_reason_of_its_deny():
    assert {error: error.reason for error in (Refused, MalformedRequest, InvalidToken, ExpiredToken)} == {
        Refused: Reason.FOREIGN_RESOURCE,
        MalformedRequest: Reason.MALFORMED,
        InvalidToken: Reason.INVALID_TOKEN,
        ExpiredToken: Reason.EXPIRED_TOKEN,
    }


@pytest.mark.parametrize("name", ["a", "A9_.@:=-", "x" * 128])
def test_a_username(name):
    assert is_username(name)


@pytest.mark.parametrize(
    "name", ["", "a/b", "a b", "é", "a\n", "x" * 129, "undefined", "null", "None", "guest"]
)
def test_what_is_not_a_username(name):
    assert not is_username(name)


def test_a_principal_is_active_and_may_do_nothing_unless_it_is_said():
    nobody = Principal("account/x", "x")

    assert (nobody.active, nobody.superuser, nobody.revoked) == (True, False, False)
    assert (nobody.secrets, nobody.client_ids, nobody.client_id_prefixes, nobody.grants) == ((), (), (), ())
    assert (nobody.attributes, nobody.version, nobody.keeper) == ({}, 0, None)
    assert (nobody.retires_previous, nobody.keeps_client_ids) == (False, False)
    assert not nobody.may_connect_as("x")
    assert nobody == Principal("account/x", "x", keeper=object())


def test_a_rule_allows_every_action_unless_it_is_said():
    rule = Rule("a")

    assert rule == Rule("a", ActionSet.ALL, True, "")
    assert Grant is Rule
    assert {"username", "client_id", "device_id", "type", "prefix"} == PLACEHOLDERS


def test_a_question_wants_no_rules_unless_it_is_said():
    assert LoginQuestion(Client("x", None), "s") == (("x", None, None, None), "s", False)
    assert (ACCOUNT, account_key("x")) == ("account", "account/x")
