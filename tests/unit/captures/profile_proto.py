"""profile.proto for protobuf's own runtime, to decode what our encoder wrote.

The messages and numbers are those of github.com/google/pprof/blob/main/proto/profile.proto; the
runtime comes with the OTLP exporter.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto
_KINDS = {
    "int64": _Field.TYPE_INT64,
    "uint64": _Field.TYPE_UINT64,
    "bool": _Field.TYPE_BOOL,
    "string": _Field.TYPE_STRING,
}
MESSAGES = {
    "Profile": """
        1 ValueType* sample_type; 2 Sample* sample; 3 Mapping* mapping; 4 Location* location;
        5 Function* function; 6 string* string_table; 7 int64 drop_frames; 8 int64 keep_frames;
        9 int64 time_nanos; 10 int64 duration_nanos; 11 ValueType period_type; 12 int64 period;
        13 int64* comment; 14 int64 default_sample_type; 15 int64 doc_url""",
    "ValueType": "1 int64 type; 2 int64 unit",
    "Sample": "1 uint64* location_id; 2 int64* value; 3 Label* label",
    "Label": "1 int64 key; 2 int64 str; 3 int64 num; 4 int64 num_unit",
    "Mapping": "1 uint64 id",
    "Location": "1 uint64 id; 2 uint64 mapping_id; 3 uint64 address; 4 Line* line; 5 bool folded",
    "Line": "1 uint64 function_id; 2 int64 line; 3 int64 column",
    "Function": "1 uint64 id; 2 int64 name; 3 int64 system_name; 4 int64 filename; 5 int64 start",
}


def _profile_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="tests/profile.proto", package="perftools.profiles", syntax="proto3"
    )
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for each in fields.split(";"):
            number, kind, field = each.split()
            repeated = kind.endswith("*")
            kind = kind.removesuffix("*")
            made = message.field.add(name=field, number=int(number))
            made.label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
            made.type = _KINDS.get(kind, _Field.TYPE_MESSAGE)
            if kind in MESSAGES:
                made.type_name = f".perftools.profiles.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindMessageTypeByName("perftools.profiles.Profile")
    return message_factory.GetMessageClass(found)


_Profile = _profile_class()


@dataclass(frozen=True)
class DecodedSample:
    """A sample with its numbers resolved: frames are (function, file, line), the leaf first."""

    values: dict[str, int]
    frames: tuple[tuple[str, str, int], ...]
    labels: dict[str, str]


@dataclass(frozen=True)
class DecodedProfile:
    """A profile with its numbers resolved."""

    sample_types: list[tuple[str, str]]
    default_sample_type: str
    time_nanos: int
    duration_nanos: int
    comments: list[str]
    samples: list[DecodedSample]
    locations: int
    functions: int


def decode_profile(data: bytes) -> DecodedProfile:
    """What protobuf's runtime reads in a profile; fails where something in it is unknown to it."""
    raw = _Profile()
    raw.ParseFromString(zlib.decompress(data, 31))
    assert raw.SerializeToString(deterministic=True)
    text = list(raw.string_table)
    assert text[0] == ""
    functions = {each.id: each for each in raw.function}
    frames = {}
    for location in raw.location:
        (line,) = location.line
        function = functions[line.function_id]
        frames[location.id] = (text[function.name], text[function.filename], line.line)
    types = [(text[each.type], text[each.unit]) for each in raw.sample_type]
    return DecodedProfile(
        sample_types=types,
        default_sample_type=text[raw.default_sample_type],
        time_nanos=raw.time_nanos,
        duration_nanos=raw.duration_nanos,
        comments=[text[each] for each in raw.comment],
        samples=[
            DecodedSample(
                values={name: n for (name, _), n in zip(types, each.value, strict=True)},
                frames=tuple(frames[number] for number in each.location_id),
                labels={text[label.key]: text[label.str] for label in each.label},
            )
            for each in raw.sample
        ],
        locations=len(frames),
        functions=len(functions),
    )
