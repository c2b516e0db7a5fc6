"""What the property tests draw from: any text, any bytes, any record, any cut of a stream."""

from __future__ import annotations

import types
import typing

from hypothesis import strategies as st

from otel_celery_memory.ipc.records import Record

INT64 = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.sampled_from([-(2**63), -1, 0, 1, 2**63 - 1])
)
COUNT = st.integers(0, 2**63 - 1)
"""What OTLP can carry of what is not negative."""
BEYOND_INT64 = st.one_of(st.integers(2**63, 2**70), st.integers(-(2**70), -(2**63) - 1))


def _repeated(text: str, times: int) -> str:
    return text * times


TEXT: st.SearchStrategy[str] = st.one_of(
    # Lone surrogates and NULs too.
    st.text(st.characters(), max_size=20),
    st.text(st.sampled_from("a\0\n/:é\ud800\u2028\U0001f9e0"), max_size=20),
    st.builds(_repeated, st.text(st.characters(), min_size=1, max_size=4), st.integers(50, 3_000)),
)
JSON: st.SearchStrategy[typing.Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)


def _records(record_type: type[Record]) -> st.SearchStrategy[Record]:
    kinds: dict[object, st.SearchStrategy[typing.Any]] = {
        int: INT64,
        int | types.NoneType: st.one_of(st.none(), INT64),
        bytes: st.binary(min_size=25, max_size=25),
        str: TEXT,
    }
    hints = typing.get_type_hints(record_type)
    return st.builds(record_type, *(kinds[hints[name]] for name in record_type._fields))


RECORDS: st.SearchStrategy[Record] = st.one_of(
    [_records(record_type) for record_type in typing.get_args(Record)]
)


def cut(data: bytes) -> st.SearchStrategy[list[bytes]]:
    """The same bytes in pieces of any size, or of one and the same small one."""
    places = st.one_of(
        st.lists(st.integers(0, len(data)), max_size=8).map(sorted),
        st.integers(1, 12).map(lambda size: range(size, len(data), size)),
    )
    return places.map(lambda at: [data[a:b] for a, b in zip([0, *at], [*at, None], strict=True)])
