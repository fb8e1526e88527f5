"""The names of a rule."""

from authsvc.core import grants


def test_directories_of_other_projects_may_call_a_rule_a_grant():
    assert grants.Grant is grants.Rule
