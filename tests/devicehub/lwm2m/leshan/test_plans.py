"""The steps that follow from the objects of an endpoint and the wishes of an operator."""

import pytest

from devicehub.lwm2m.leshan.plans import MOST_STEPS, Action, Step, plan, wish

INSTANCES = {1: (0,), 3: (0,), 5: (0,), 3303: (0, 1), 3304: (0,)}
READS = [Step(Action.READ, (path,)) for path in ("/3/0/3", "/5/0/3", "/5/0/5")]


def observe(*paths):
    return Step(Action.OBSERVE, paths)


def planned(*texts, instances=INSTANCES, version="1.1"):
    return plan([wish(text) for text in texts], instances, version)


def test_a_path_is_observed_where_the_endpoint_has_its_instance():
    assert planned("3303/0/5700", "/3303/7/5700", "/9", "3304") == [
        observe("/3303/0/5700"),
        observe("/3304"),
        *READS,
    ]


def test_a_star_stands_for_all_instances():
    assert planned("3303/*/5700", "3303/*")[:4] == [
        observe("/3303/0/5700"),
        observe("/3303/1/5700"),
        observe("/3303/0"),
        observe("/3303/1"),
    ]


def test_a_plus_makes_one_composite_observation():
    assert planned("3303/*/5700+3304/0/5700")[0] == observe("/3303/0/5700", "/3303/1/5700", "/3304/0/5700")


@pytest.mark.parametrize("options", [{"version": "1.0"}, {"instances": {3303: (0,)}}])
def test_a_composite_observation_needs_version_1_1_and_two_paths(options):
    assert planned("3303/0/5700+3304/0/5700", **options)[0] == observe("/3303/0/5700")


def test_firmware_is_read_where_its_objects_are():
    assert planned(instances={3: (0,)}) == READS[:1]
    assert planned(instances={5: (1,)}) == []
    assert planned(instances={}) == []


def test_the_number_of_steps_is_bounded_and_the_reads_stay():
    steps = planned("3303/*/5700", instances={3: (0,), 5: (0,), 3303: tuple(range(1000))})

    assert len(steps) == MOST_STEPS
    assert steps[-3:] == READS


@pytest.mark.parametrize("text", ["", "/", "*", "3303/0/*", "a", "3303/0/5700/0/0", "70000", "3303+", "1//2"])
def test_a_text_that_is_not_a_path_is_refused(text):
    with pytest.raises(ValueError):
        wish(text)
