"""A capture as an OTLP profile of live memory, and sending it.

Profiles are alpha in OpenTelemetry (``v1development``), and their format has changed several times.
The classes are those of opentelemetry-proto, from release 1.40 on: a Collector from 0.148 on takes
them behind its gate ``service.profilesSupport``.
"""

from __future__ import annotations

import gzip
import os
import secrets
import ssl
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Generic, TypeVar
from urllib.error import HTTPError
from urllib.request import HTTPSHandler, Request, build_opener

from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.profiles.v1development import profiles_pb2
from opentelemetry.sdk.resources import Resource
from opentelemetry.util.re import parse_env_headers

from otel_celery_memory import conventions as c
from otel_celery_memory.captures.model import Capture, CapturedSite, CaptureError, ShortNames
from otel_celery_memory.captures.pprof import OTHER

PATH = "/v1development/profiles"
_OLD = "opentelemetry-proto 1.40 or later is needed for profiles"
_FRAME_TYPE, _CPYTHON = "profile.frame.type", "cpython"
"""OpenTelemetry's attribute of a place in a profile."""
_TIMEOUT_S = 10.0
_ANSWER_MAX_BYTES = 64 << 10

_Message = TypeVar("_Message")


def profile_request(capture: Capture, resource: Resource) -> Any:
    """The request: a profile of bytes and one of blocks alive, by stack and task.

    Raises `CaptureError` if the classes that are installed are of an older format.
    """
    if not hasattr(profiles_pb2, "Stack"):
        raise CaptureError(_OLD)
    tables = _Tables(capture)
    profiles = [
        tables.profile("inuse_space", "bytes", lambda site: site.size_bytes, capture.other_bytes),
        tables.profile("inuse_objects", "count", lambda site: site.blocks, capture.other_blocks),
    ]
    scope = profiles_pb2.ScopeProfiles(profiles=profiles)
    scope.scope.name, scope.scope.version = c.SCOPE, c.VERSION
    of_resource = profiles_pb2.ResourceProfiles(scope_profiles=[scope])
    of_resource.resource.attributes.extend(
        KeyValue(key=key, value=_value(value)) for key, value in resource.attributes.items()
    )
    return profiles_service_pb2.ExportProfilesServiceRequest(
        resource_profiles=[of_resource], dictionary=tables.dictionary()
    )


def send_profile(
    endpoint: str, capture: Capture, resource: Resource, environ: Mapping[str, str] = os.environ
) -> str:
    """Sends a capture to an OTLP/HTTP endpoint, with the headers and certificate of the variables.

    Returns the URL. Raises `CaptureError` in one line if it was not taken.
    """
    url = endpoint if endpoint.endswith(PATH) else endpoint.rstrip("/") + PATH
    body = gzip.compress(profile_request(capture, resource).SerializeToString())
    headers = {
        **parse_env_headers(environ.get("OTEL_EXPORTER_OTLP_HEADERS", ""), liberal=True),
        "Content-Type": "application/x-protobuf",
        "Content-Encoding": "gzip",
    }
    try:
        with _opener(environ).open(
            # Whoever asks lets in HTTP alone.
            Request(url, body, headers),  # noqa: S310
            timeout=_TIMEOUT_S,
        ) as answer:
            content = answer.read(_ANSWER_MAX_BYTES)
        taken = profiles_service_pb2.ExportProfilesServiceResponse.FromString(content)
    except HTTPError as error:
        hint = f": is its gate service.profilesSupport on, with a pipeline of {PATH[1:]}?"
        raise CaptureError(
            f"{url} answered {error.code}{hint if error.code == 404 else ''}"
        ) from None
    except Exception as error:
        # An address, a certificate, an answer that is none.
        why = " ".join(str(error).split()) or type(error).__name__
        raise CaptureError(f"{url}: {why}") from None
    if taken.partial_success.rejected_profiles:
        raise CaptureError(f"{url} rejected it: {taken.partial_success.error_message!a}")
    return url


def _opener(environ: Mapping[str, str]) -> Any:
    certificate = environ.get("OTEL_EXPORTER_OTLP_CERTIFICATE", "").strip() or None
    return build_opener(HTTPSHandler(context=ssl.create_default_context(cafile=certificate)))


def _value(value: Any) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    return AnyValue(string_value=str(value))


class _Table(Generic[_Message]):
    """Messages that others refer to by number; 0 is the empty one, which means none."""

    def __init__(self, empty: _Message) -> None:
        self.messages = [empty]
        self._known: dict[Hashable, int] = {}

    def index(self, key: Hashable, make: Callable[[], _Message]) -> int:
        """The number of the message with this key, made at first."""
        found = self._known.get(key)
        if found is None:
            message = make()
            found = self._known[key] = len(self.messages)
            self.messages.append(message)
        return found


class _Tables:
    """What the profiles of one capture share: strings, functions, places, stacks, attributes."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._names = ShortNames(capture.sites)
        self._functions_known = {
            (site.path, site.line): site.function for site in capture.sites if site.function
        }
        self._strings = _Table("")
        self._functions: _Table[Any] = _Table(profiles_pb2.Function())
        self._locations: _Table[Any] = _Table(profiles_pb2.Location())
        self._stacks: _Table[Any] = _Table(profiles_pb2.Stack())
        self._attributes: _Table[Any] = _Table(profiles_pb2.KeyValueAndUnit())

    def dictionary(self) -> Any:
        """The tables as they are after all profiles were made."""
        return profiles_pb2.ProfilesDictionary(
            mapping_table=[profiles_pb2.Mapping()],
            location_table=self._locations.messages,
            function_table=self._functions.messages,
            link_table=[profiles_pb2.Link()],
            string_table=self._strings.messages,
            attribute_table=self._attributes.messages,
            stack_table=self._stacks.messages,
        )

    def profile(
        self, kind: str, unit: str, number: Callable[[CapturedSite], int], other: int
    ) -> Any:
        """One profile: a number of each site, and that of all sites beyond the bound."""
        capture = self._capture
        samples = [
            profiles_pb2.Sample(
                stack_index=self._stack(site),
                values=[number(site)],
                attribute_indices=[self._attribute(c.TASK_NAME, site.task)] if site.task else [],
            )
            for site in capture.sites
        ]
        if other:
            places = (self._location(OTHER, "", 0),)
            samples.append(profiles_pb2.Sample(stack_index=self._stack_of(places), values=[other]))
        measured = profiles_pb2.ValueType(
            type_strindex=self._string(kind), unit_strindex=self._string(unit)
        )
        return profiles_pb2.Profile(
            sample_type=measured,
            samples=samples,
            time_unix_nano=capture.taken_ns,
            duration_nano=round(capture.duration_s * 1e9),
            period_type=measured,
            period=1,
            profile_id=secrets.token_bytes(16),
            attribute_indices=[
                self._attribute(c.SNAPSHOT_KIND, capture.kind),
                self._attribute(c.SNAPSHOT_REASON, capture.reason),
            ],
        )

    def _stack(self, site: CapturedSite) -> int:
        stack = site.stack or ((site.path, site.line),)
        # The leaf first.
        return self._stack_of(tuple(self._place(*at) for at in reversed(stack)))

    def _stack_of(self, places: tuple[int, ...]) -> int:
        return self._stacks.index(places, lambda: profiles_pb2.Stack(location_indices=places))

    def _place(self, path: str, line: int) -> int:
        """A location; a line without a known function stands for the function."""
        name = self._functions_known.get((path, line)) or self._names.place(path, line)
        return self._location(name, path, line)

    def _location(self, name: str, path: str, line: int) -> int:
        called, file = self._string(name), self._string(path)
        function = self._functions.index(
            (name, path),
            lambda: profiles_pb2.Function(
                name_strindex=called, system_name_strindex=called, filename_strindex=file
            ),
        )
        kind = self._attribute(_FRAME_TYPE, _CPYTHON)
        at = profiles_pb2.Line(function_index=function, line=line)
        return self._locations.index(
            (function, line),
            lambda: profiles_pb2.Location(lines=[at], attribute_indices=[kind]),
        )

    def _attribute(self, key: str, value: str) -> int:
        named = self._string(key)
        return self._attributes.index(
            (key, value),
            lambda: profiles_pb2.KeyValueAndUnit(
                key_strindex=named, value=AnyValue(string_value=_clean(value))
            ),
        )

    def _string(self, text: str) -> int:
        text = _clean(text)
        return self._strings.index(text, lambda: text) if text else 0


def _clean(text: str) -> str:
    """Text that is UTF-8: a path may have bytes that are not."""
    return text.encode("utf-8", "replace").decode()
