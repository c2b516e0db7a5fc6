"""Any capture that a worker could have taken, whatever its tasks and files are called."""

from __future__ import annotations

from hypothesis import strategies as st

from otel_celery_memory.captures.model import KINDS, Capture, CapturedProcess, CapturedSite
from tests.unit.arbitrary import COUNT, TEXT

_SIZE = st.integers(-(2**63) + 1, 2**63 - 1)
_SITES = st.builds(
    CapturedSite,
    task=TEXT,
    path=TEXT,
    line=COUNT,
    function=st.one_of(st.none(), TEXT),
    name=TEXT,
    stack=st.lists(st.tuples(TEXT, COUNT), max_size=3).map(tuple),
    size_bytes=_SIZE,
    blocks=_SIZE,
)
_PROCESSES = st.builds(CapturedProcess, TEXT, COUNT, st.one_of(st.none(), COUNT))
CAPTURES = st.builds(
    Capture,
    kind=st.sampled_from(sorted(KINDS)),
    worker=TEXT,
    reason=TEXT,
    taken_ns=COUNT,
    duration_s=st.floats(0, 1e9),
    frames=st.integers(1, 2**63 - 1),
    tracing=TEXT,
    processes=st.lists(_PROCESSES, max_size=2).map(tuple),
    runs=st.dictionaries(TEXT, COUNT, max_size=2),
    sites=st.lists(_SITES, max_size=3).map(tuple),
    other_bytes=_SIZE,
    other_blocks=_SIZE,
)
