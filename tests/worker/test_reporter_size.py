"""The reporter stays as small as it is, however many frames and names it is fed."""

from __future__ import annotations

import pytest

from soak.frames import feed

GROWTH_MAX_BYTES = 6 << 20
"""What the allocator may do; 64 bytes kept of every frame would be twice that."""


@pytest.mark.long
def test_frames_and_names_without_end_do_not_make_the_reporter_grow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    growth = feed(frames=200_000, names=3_000)
    assert growth.dropped == 0
    assert growth.measured == 100_000
    assert growth.grown_bytes < GROWTH_MAX_BYTES
