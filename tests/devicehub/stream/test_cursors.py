"""Cursors: any place comes back from its text, and no other text is a place."""

from hypothesis import given
from hypothesis import strategies as st

from devicehub.stream import cursors
from devicehub.stream.cursors import HIGHEST, Place

whole = st.integers(0, HIGHEST // 2)
states = st.tuples(whole, whole, whole).map(lambda three: (three[0], three[0] + three[1], three[2]))
places = st.builds(Place, whole, whole, st.lists(states, max_size=20).map(tuple))


@given(places)
def test_a_place_comes_back(place):
    text = cursors.write(*place)
    assert cursors.read(text) == place
    assert len(text) < cursors.LONGEST


@given(st.text() | st.text("abcdefABCDEF0123456789_-"))
def test_another_text_is_not_a_place(text):
    assert cursors.read(text) is None


def test_a_text_of_another_site_is_not_a_place(settings):
    """Only its own processes write places that are read, so that none makes it query what nobody saw."""
    text = cursors.write(1, 2, ((3, 4, 5),))
    settings.SECRET_KEY = "another"
    assert cursors.read(text) is None


def test_a_changed_text_is_not_a_place():
    """Neither one with a wrong signature, nor one beyond all times and keys."""
    text = cursors.write(1, 2, ((3, 4, 5),))
    assert cursors.read(text[:-1]) is None
    assert cursors.read("B" + text[1:]) is None
    assert cursors.read(cursors.write(1, 2, ((2 * HIGHEST, 3 * HIGHEST, 5),))) is None
    assert cursors.read(cursors.write(1, 2, ((3, 4, 5),)) + "A" * cursors.LONGEST) is None
