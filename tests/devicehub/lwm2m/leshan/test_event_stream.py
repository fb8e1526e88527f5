"""Server-sent events in pieces of any size."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devicehub.lwm2m.leshan.event_stream import EventStream, ServerEvent

RECORDED = (
    b'event: AWAKE\r\ndata: {"ep":"urn:dev:q"}\r\n\r\n'
    b"\r\n"  # Leshan keeps its streams alive with an empty line.
    b'event: NOTIFICATION\r\ndata: {"ep":"urn:dev:a","res":"/3303/0/5700"}\r\n\r\n'
)
EVENTS = [
    ServerEvent("AWAKE", '{"ep":"urn:dev:q"}'),
    ServerEvent("NOTIFICATION", '{"ep":"urn:dev:a","res":"/3303/0/5700"}'),
]


quick = settings(deadline=None, database=None)


def read(*pieces, **options):
    stream = EventStream(**options)
    return [event for piece in pieces for event in stream.feed(piece)]


def test_events_of_leshan_are_read():
    assert read(RECORDED) == EVENTS


@quick
@given(st.lists(st.integers(0, len(RECORDED)), max_size=20))
def test_the_sizes_of_the_pieces_do_not_matter(cuts):
    places = [0, *sorted(cuts), len(RECORDED)]

    assert read(*(RECORDED[a:b] for a, b in itertools.pairwise(places))) == EVENTS


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_each_line_end_of_the_standard_counts(end):
    text = RECORDED.replace(b"\r\n", end)

    assert read(text, end, b": the end\n") == EVENTS
    assert read(*(bytes([byte]) for byte in text), end, b": the end\n") == EVENTS


def test_several_lines_of_data_are_one_text():
    assert read(b"data: {\ndata:  1}\n\n") == [ServerEvent("message", "{\n 1}")]


def test_comments_ids_and_waits_are_left_out():
    assert read(b": hello\nid: 7\nretry: 10\nevent: SEND\n\nother\ndata\n\n") == [ServerEvent("message", "")]


def test_a_mark_of_the_byte_order_stands_at_the_beginning_alone():
    mark = b"\xef\xbb\xbf"

    assert read(mark + b"event: SEND\ndata: 1\n\n" + mark + b"event: SEND\ndata: 2\n\n") == [
        ServerEvent("SEND", "1"),
        ServerEvent("message", "2"),
    ]


def test_a_line_without_an_end_takes_no_memory():
    stream = EventStream(most=100)
    for _ in range(100):
        assert list(stream.feed(b"data: 0123456789")) == []
        assert len(stream._begun) <= 120

    assert list(stream.feed(b"\n\n" + RECORDED)) == EVENTS
    assert stream.skipped == 1


def test_an_event_whose_end_is_missing_is_not_read():
    assert read(b"event: SEND\ndata: {}\n") == []


@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_an_event_that_is_too_long_is_skipped_and_the_next_is_read(pieces):
    text = b"event: SEND\r\ndata: " + b"x" * 500 + b"\r\n\r\n" + RECORDED
    stream = EventStream(most=100)

    found = [event for at in range(0, len(text), pieces) for event in stream.feed(text[at : at + pieces])]

    assert found == EVENTS
    assert stream.skipped == 1


def test_an_event_of_many_lines_is_too_long_as_a_whole():
    stream = EventStream(most=100)

    assert list(stream.feed(b"data: 0123456789\n" * 1000 + b"\n" + RECORDED)) == EVENTS
    assert stream.skipped == 1


@quick
@given(st.lists(st.binary(max_size=50), max_size=50))
def test_memory_is_bounded_for_any_bytes(pieces):
    stream = EventStream(most=100)

    for piece in pieces:
        for event in stream.feed(piece):
            assert len(event.data.encode("utf-8", "replace")) <= 3 * 100
        assert len(stream._begun) + sum(map(len, stream._data)) <= 250
