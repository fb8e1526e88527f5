"""Events of readings with long values: their memory is bounded."""

import pytest
from django.utils import timezone

from devicehub.stream import feed, sources


@pytest.mark.django_db
def test_heavy_values_are_a_flood(probe_kind, monkeypatch):
    """They are weighed before they are read: each may have a mebibyte."""
    device = probe_kind.device_model.objects.create(device_id="SAMPLER-1", mqtt_username="p1")
    now, model = timezone.now(), probe_kind.reading_model
    read = feed.Feed()
    read.begin()
    place = read.place
    rows = [model(device=device, timestamp=now, extra=["x" * 100], raw=b"1" * 100) for _ in range(2)]
    model.objects.bulk_create(rows)
    monkeypatch.setattr(feed, "HEAVIEST", 300)
    with pytest.raises(sources.Flood):
        read.look()
    monkeypatch.setattr(feed, "HEAVIEST", 1_000)
    assert len(read.look()) == len(read.since(place)) == 2
    monkeypatch.setattr(feed, "HEAVIEST", 300)
    with pytest.raises(sources.Flood):
        read.since(place)
