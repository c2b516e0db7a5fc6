"""Live objects by type, and what holds them: names of types and attributes, never a value.

Only objects that the collector tracks are listed (`live_objects`): instances and containers, not
text, bytes, numbers or arrays. Of those it is known how many a container has (`lengths`).

**No code of the user's is called.** A class may define ``__class__``, ``__hash__``, ``__eq__`` or
its own attribute look-up, and its metaclass too. So objects are compared and kept by `id`, a type
is what `type` says, and names are read through the descriptors of ``type`` and ``object``
themselves. `isinstance` is not used, as it asks for ``__class__``.

**Nothing is kept alive.** A caller drops the list of objects before the user's code goes on, and
keeps numbers only. An `id` may belong to another object by then: a chain is then of that one. The
same list must be passed to all functions within one step.

**Who holds an object** is searched from the object upwards, level by level (`HolderSearch`). A scan
of all objects in C (`gc.get_referrers`) finds one level, in 20 to 60 ns an object. A map from all
objects to their holders would need no second scan, but 300 bytes an object.

Local variables of a function that is running are not seen from CPython 3.11 on: the collector is
given those of suspended ones only. ``f_locals`` would leave a copy of them in the user's frame, and
in 3.13.0 it leaks.
"""

from __future__ import annotations

import functools
import gc
import heapq
import operator
import sys
import types
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress, islice
from typing import Any

LENGTHS_MAX = 10_000
"""Containers whose length is kept, the longest ones: 1 MiB."""
LEAST_LENGTH = 100
"""Shorter containers are passed over."""
SAMPLE_MAX = 8
"""Objects of a type whose holders are searched."""
_CANDIDATES_MAX = 5_000
"""Objects of a type among which those are searched that are new."""
_NEW_SHARE = 0.25
"""Least share of a type's growth that must be new objects, for them to say what grew."""
_FRONTIER_MAX = 16
"""Objects whose holders one scan looks for: its time grows with them."""
_HOLDERS_MAX = 5_000
"""Holders that are examined after one scan."""
_ENTRIES_MAX = 100_000
"""Entries of a container that are examined, the last ones first."""
_ATTRIBUTES_MAX = 1_000
LEVELS_MAX = 16
_NAME_MAX = 200
_CHAIN_MAX = 900
_LAST_ENTRIES = 50

_qualname_of_type = type.__dict__["__qualname__"].__get__
_module_of_type = type.__dict__["__module__"].__get__
_mro_of_type = type.__dict__["__mro__"].__get__
_dict_of_type = type.__dict__["__dict__"].__get__
_subclasses_of = type.__dict__["__subclasses__"]
_dict_of_module: Callable[[Any], dict[str, Any]] = vars(types.ModuleType)["__dict__"].__get__
_code_of_frame = types.FrameType.__dict__["f_code"].__get__
_FUNCTION = {
    name: types.FunctionType.__dict__[name].__get__
    for name in (
        *("__closure__", "__code__", "__defaults__", "__kwdefaults__"),
        *("__module__", "__qualname__"),
    )
}
_GENERATORS = {
    id(types.GeneratorType): types.GeneratorType.__dict__["gi_code"].__get__,
    id(types.CoroutineType): types.CoroutineType.__dict__["cr_code"].__get__,
    id(types.AsyncGeneratorType): types.AsyncGeneratorType.__dict__["ag_code"].__get__,
}
_LRU_CACHE = type(functools.lru_cache(lambda: None))
_LENGTH: dict[type, Callable[[Any], int]] = {
    list: list.__len__,
    dict: dict.__len__,
    set: set.__len__,
    deque: deque.__len__,
}
_LAST: dict[type, Callable[[Any], Iterator[Any]]] = {
    list: list.__reversed__,
    dict: lambda held: reversed(dict.values(held)),
    set: set.__iter__,
    deque: deque.__reversed__,
    tuple: tuple.__iter__,
    frozenset: frozenset.__iter__,
}
"""By the type that a container is or inherits from: its entries, the last ones first if it has an
order."""
_PLACE = "[…]"
_NAMESPACE = "__dict__"
UNKNOWN_HOLDER = "a running function, or native code"


def type_name(cls: type) -> str:
    """Module and qualified name, as in the source; the module is left out for built-in types."""
    try:
        module = _module_of_type(cls)
    except AttributeError:  # it was deleted
        module = None
    name = _text(_qualname_of_type(cls))
    return name if module == "builtins" and type(module) is str else f"{_text(module)}.{name}"


def live_objects() -> list[object]:
    """What the collector tracks, and some that it does not: `_plain_dicts`."""
    objects: list[object] = gc.get_objects()
    objects += _plain_dicts()
    return objects


def _plain_dicts() -> list[object]:
    """Dicts of text and numbers alone, which the collector tracks from CPython 3.14 on only.

    Those of modules, of their classes, and of the instances that they name: a cache is mostly one.
    """
    found: dict[int, object] = {}
    seen: set[int] = set()
    for module in list(sys.modules.values()):
        if _is(module, types.ModuleType):
            for each in _values_of(_dict_of_module(module)):
                _add_plain(found, [each])
                if type(each) is not dict and id(each) not in seen and gc.is_tracked(each):
                    seen.add(id(each))
                    _add_plain(found, _attributes(each))
    return list(found.values())


def _add_plain(found: dict[int, object], values: Iterable[object]) -> None:
    found.update(
        (id(each), each) for each in values if type(each) is dict and not gc.is_tracked(each)
    )


def _attributes(each: Any) -> list[Any]:
    """The attributes of a class or an instance; none of a container or a function."""
    if _is(each, type):
        return _values_of(*gc.get_referents(_dict_of_type(each)))
    if _base(each, _LAST) is not None or type(each) is types.FunctionType:
        return []
    held = gc.get_referents(each)
    # If it has a dict for them; one is not made.
    namespaces = [it for it in held if type(it) is dict and len(it) <= _ATTRIBUTES_MAX]
    return held + [value for namespace in namespaces for value in _values_of(namespace)]


def _values_of(namespace: dict[Any, Any] | None) -> list[Any]:
    # A copy: another thread may change it.
    return [] if namespace is None else list(dict.values(namespace))


def count_by_type(objects: Sequence[object], stride: int = 1) -> Counter[int]:
    """How many objects there are, by the `id` of their type; estimated from each ``stride``-th."""
    picked = objects if stride == 1 else objects[::stride]
    counts = Counter(map(id, map(type, picked)))
    if stride > 1:
        for each in counts:
            counts[each] *= stride
    return counts


def ids_of(objects: Iterable[object]) -> array[int]:
    """The identities of objects, 8 bytes each."""
    return array("Q", map(id, objects))


def with_ids(objects: Iterable[object], ids: Iterable[int]) -> list[Any]:
    """Those objects that have one of these identities."""
    wanted = frozenset(ids)
    return list(compress(objects, map(wanted.__contains__, map(id, objects))))


def lengths(objects: Sequence[object]) -> dict[int, int]:
    """How many entries each of the longest containers has, by its `id`."""
    # The length of a subclass is what its base says, not its own code.
    length_of = {
        id(kind): length for base, length in _LENGTH.items() for kind in (base, *_subclasses(base))
    }
    found: dict[int, int] = {}
    held: Iterable[Any] = compress(
        objects, map(length_of.__contains__, map(id, map(type, objects)))
    )
    for each in held:
        kind = type(each)
        # `len` is faster; for these two it is the same.
        length = len if kind is list or kind is dict else length_of[id(kind)]
        if (size := length(each)) >= LEAST_LENGTH:
            found[id(each)] = size
    if len(found) <= LENGTHS_MAX:
        return found
    return dict(heapq.nlargest(LENGTHS_MAX, found.items(), key=operator.itemgetter(1)))


def _subclasses(base: type) -> list[type]:
    found: list[type] = []
    ahead = _subclasses_of(base)
    while ahead:
        cls = ahead.pop()
        found.append(cls)
        ahead += _subclasses_of(cls)
    return found


@dataclass(frozen=True)
class NewObjects:
    """Objects of a type that were not there before: its name, how many it has, and some of them."""

    type_name: str
    objects: int
    growth: int
    ids: tuple[int, ...]


def new_objects(
    objects: Sequence[object], counts: Mapping[int, int], growth: Mapping[int, int], old: array[int]
) -> list[NewObjects]:
    """A sample of what is new of the types in ``growth`` (by `id`); ``old`` are all ids before.

    Of each type as many are looked at as may tell the new ones from the others, all over the list.
    Where most of the growth was there when the ids were noted, which is after the first count, the
    few that are new do not say what grew: there is no sample.
    """
    kinds = frozenset(growth)
    by_type: dict[int, list[object]] = {}
    for each in compress(objects, map(kinds.__contains__, map(id, map(type, objects)))):
        by_type.setdefault(id(type(each)), []).append(each)
    candidates = {
        kind: found[:: max(len(found) // _CANDIDATES_MAX, 1)] + found[-_CANDIDATES_MAX // 10 :]
        for kind, found in by_type.items()
    }
    new = set(map(id, (each for found in candidates.values() for each in found)))
    new.difference_update(old)
    rows = []
    for kind, found in candidates.items():
        fresh = list(dict.fromkeys(id(each) for each in found if id(each) in new))
        each_of = max(len(by_type[kind]) // _CANDIDATES_MAX, 1)
        if len(fresh) * each_of < _NEW_SHARE * growth[kind]:
            fresh = []
        sample = tuple(fresh[:: max(len(fresh) // SAMPLE_MAX, 1)][:SAMPLE_MAX])
        name = type_name(type(found[0]))
        rows.append(NewObjects(name, counts.get(kind, 0), growth[kind], sample))
    return sorted(rows, key=lambda row: -row.growth)


def grown_containers(
    objects: Sequence[object],
    before: Mapping[int, int],
    now: Mapping[int, int],
    most: int,
    ours: frozenset[int] = frozenset(),
) -> list[NewObjects]:
    """Containers that grew most by entries that the collector does not track, such as text.

    Their ``type_name`` is of the entries; ``ids`` has the container. ``ours`` are passed over. One
    that is not in ``before`` may have had almost `LEAST_LENGTH`: it has grown by the rest at least.
    """
    growth = {each: now[each] - before.get(each, LEAST_LENGTH) for each in now.keys() - ours}
    largest = heapq.nlargest(4 * most, growth, key=growth.__getitem__)
    rows = []
    for held in with_ids(objects, (each for each in largest if growth[each] >= LEAST_LENGTH)):
        entries = last_entries(held, min(growth[id(held)], _LAST_ENTRIES))
        kinds = {id(type(each)): type(each) for each in entries}
        common = Counter(map(id, map(type, entries))).most_common(1)
        if common and not any(map(gc.is_tracked, entries)):
            name = type_name(kinds[common[0][0]])
            rows.append(NewObjects(name, now[id(held)], growth[id(held)], (id(held),)))
    return sorted(rows, key=lambda row: -row.growth)[:most]


def last_entries(held: Any, most: int) -> list[object]:
    """The last entries of a container; of a `dict` its values, or its keys if they say nothing."""
    try:
        found = list(islice(_LAST[_base(held, _LAST)](held), most))
        if _is(held, dict) and all(each is None or each is True for each in found):
            return list(islice(reversed(dict.keys(held)), most))
        return found
    except RuntimeError:  # another thread has changed it
        return []


def module_namespaces() -> dict[int, str]:
    """The name of each imported module, by the `id` of its namespace."""
    # Of several names the first one counts, so it comes last.
    return {
        id(_dict_of_module(module)): name
        for name, module in reversed(list(sys.modules.items()))
        if _is(module, types.ModuleType) and type(name) is str
    }


@dataclass
class _Holder:
    label: str
    kind: type | None
    held: list[tuple[int, str]]
    """The identity of each object below it that it holds, and under which name."""


class HolderSearch:
    """What holds some objects, up to a root: a module, or a class that has a name of its own.

    It keeps identities and names between its scans, and no object.
    """

    def __init__(self, ids: Iterable[int], known: dict[int, str]) -> None:
        """``known``: the chains of holders by their `id`, of earlier searches; it adds its own."""
        self._frontier = list(ids)
        self._sample = frozenset(self._frontier)
        self._known = known
        self._seen = set(self._frontier)
        self._holders: dict[int, _Holder] = {}
        self._chains: dict[int, str] = {}
        self._levels = 0
        self._last: list[int] = []

    @property
    def done(self) -> bool:
        """Whether more scans would find no more."""
        return (
            not self._frontier
            or self._levels >= LEVELS_MAX
            or 2 * len(self._chains) > len(self._sample)
        )

    @property
    def sampled(self) -> int:
        """How many objects are searched for."""
        return len(self._sample)

    def chain(self) -> tuple[str, int]:
        """The chain by which most of them are held, the root first, and how many that is."""
        votes = Counter(self._chains.values())
        if not votes and self._last:
            text = UNKNOWN_HOLDER if not self._frontier else "…"
            for holder in self._last:
                self._found(holder, text)
            votes = Counter(self._chains.values())
        if not votes:
            return (UNKNOWN_HOLDER, len(self._sample)) if self._sample else ("", 0)
        return votes.most_common(1)[0]

    def climb(
        self,
        objects: Sequence[object],
        modules: Mapping[int, str],
        goes_on: Callable[[], bool] = lambda: True,
    ) -> None:
        """Goes up level by level, while ``goes_on``; ``objects`` are all that there are now."""
        frontier = with_ids(objects, self._frontier)
        while not self.done:
            frontier = self._next_level(frontier, modules, id(objects))
            if not goes_on():
                return

    def _next_level(self, frontier: list[Any], modules: Mapping[int, str], ours: int) -> list[Any]:
        self._levels += 1
        targets = frozenset(map(id, frontier))
        found = self._holders_of(frontier, {ours, id(frontier)})
        above: list[Any] = []
        for holder in found[:_HOLDERS_MAX]:
            held = self._held_by(holder, targets)
            if not held:
                continue
            at = id(holder)
            label, is_root = _label(holder, modules)
            # A module holds many things: one at each level is a chain of its own.
            before = self._holders[at].held if at in self._holders else []
            kind = type(holder) if at not in modules else None
            self._holders[at] = _Holder(label, kind, [*held, *before])
            if is_root or at in self._known:
                self._found(at, self._known.get(at, ""))
            else:
                self._seen.add(at)
                above.append(holder)
        # What holds many of them is rather the one that is looked for.
        above.sort(key=lambda holder: -len(self._holders[id(holder)].held))
        if above:
            self._last = [id(above[0])]
        self._frontier = list(map(id, above[:_FRONTIER_MAX]))
        return above[:_FRONTIER_MAX]

    def _holders_of(self, frontier: list[Any], ours: set[int]) -> list[Any]:
        # The marker tells the arguments of this call from the user's own tuples.
        marker = object()
        kinds = frozenset(map(id, frontier))
        passed = self._seen | ours
        return [
            each
            for each in (gc.get_referrers(*frontier, marker) if frontier else ())
            # A class is held by each of its instances, which says nothing.
            if id(each) not in passed and id(type(each)) not in kinds
            if not (type(each) is tuple and each and each[-1] is marker)
            if not _is_our_frame(each)
        ]

    def _held_by(self, holder: Any, targets: frozenset[int]) -> list[tuple[int, str]]:
        base = _base(holder, _LAST)
        if base is not None:
            found = _entries_held(holder, base, targets)
            if found or type(holder) is base:
                return found
        return [
            (id(each), self._name_in(holder, each))
            for each in gc.get_referents(holder)
            if id(each) in targets
        ]

    def _name_in(self, holder: Any, held: Any) -> str:
        if type(holder) is types.FunctionType:
            return self._name_in_function(holder, held)
        if _is(holder, type):
            is_namespace = any(each is held for each in gc.get_referents(_dict_of_type(holder)))
            return _NAMESPACE if is_namespace else ""
        return attribute_name(holder, held)

    def _name_in_function(self, function: Any, held: Any) -> str:
        closure = _FUNCTION["__closure__"](function)
        if held is closure and closure is not None:
            below = (
                {at for at, _ in self._holders[id(held)].held} if id(held) in self._holders else ()
            )
            names = _FUNCTION["__code__"](function).co_freevars
            at = [name for name, cell in zip(names, closure, strict=True) if id(cell) in below]
            return f"closure {at[0]}" if at else "closure"
        if held is _FUNCTION["__defaults__"](function):
            return "default"
        if held is _FUNCTION["__kwdefaults__"](function):
            return "default"
        return attribute_name(function, held)

    def _found(self, root: int, prefix: str = "") -> None:
        """All that this holder holds has a chain now; ``prefix`` is that of the holder."""
        ahead: list[tuple[int, tuple[tuple[int, str], ...]]] = [(root, ())]
        seen = {root}
        while ahead:
            at, path = ahead.pop()
            for held, name in self._holders[at].held:
                below = (*path, (at, name))
                if held in self._sample and held not in self._chains:
                    self._chains[held] = _clipped(self._text(prefix, below))
                if held in self._holders and held not in seen:
                    seen.add(held)
                    ahead.append((held, below))

    def _text(self, prefix: str, path: Sequence[tuple[int, str]]) -> str:
        text = prefix
        steps = iter(path)
        for at, name in steps:
            if text:
                self._known.setdefault(at, text)
            piece, used = self._piece(at, name)
            for _ in range(used):
                _, name = next(steps, (0, _NAMESPACE))  # noqa: PLW2901
            if used == 1 and piece.endswith("."):
                piece += _clipped(name or "?", _NAME_MAX)
            text = f"{text} → {piece}" if text else piece
        return text

    def _piece(self, at: int, name: str) -> tuple[str, int]:
        """A holder and what it holds, and how many holders below it that takes in."""
        holder = self._holders[at]
        if name == _NAMESPACE:
            return f"{holder.label}.", 1
        if name.startswith("closure "):
            return f"{holder.label} {name}", 2  # the tuple of its cells, and the cell
        if name == "default":
            return f"{holder.label} default", 1
        if holder.kind is not None and _base_of(holder.kind, _LAST) is not None:
            return holder.label + _PLACE, 0
        return f"{holder.label}.{_clipped(name, _NAME_MAX)}" if name else holder.label, 0


def _entries_held(holder: Any, base: type, targets: frozenset[int]) -> list[tuple[int, str]]:
    """Which of these objects a container has, and under which key if that is text."""
    try:
        if base is not dict:
            last = islice(_LAST[base](holder), _ENTRIES_MAX)
            return [(id(each), "") for each in last if id(each) in targets]
        entries = islice(reversed(dict.items(holder)), _ENTRIES_MAX)
        found = [
            (id(value), key if type(key) is str else "")
            for key, value in entries
            if id(value) in targets
        ]
        keys = islice(reversed(dict.keys(holder)), _ENTRIES_MAX)
        return found or [(id(key), "") for key in keys if id(key) in targets]
    except RuntimeError:  # another thread has changed it
        return []


def attribute_name(holder: Any, held: object) -> str:
    """The name of the attribute that this object is of an instance; empty if it is none.

    ``__dict__`` where it is the instance's namespace itself.
    """
    try:
        namespace = _namespace(holder)
        if namespace is held and namespace is not None:
            return _NAMESPACE
        for name, value in dict.items(namespace) if namespace is not None else ():
            if value is held and type(name) is str:
                return name
        for cls in _mro_of_type(type(holder)):
            for name, slot in _dict_of_type(cls).items():
                if type(slot) is types.MemberDescriptorType and type(name) is str:
                    try:
                        if slot.__get__(holder) is held:
                            return name
                    except AttributeError:  # it is not set
                        continue
    except Exception:  # another thread has changed it, or an extension type has its own rules
        return ""
    return ""


def _namespace(holder: Any) -> dict[Any, Any] | None:
    """The ``__dict__`` of an instance, unless its class has made something else of that."""
    for cls in _mro_of_type(type(holder)):
        descriptor = _dict_of_type(cls).get("__dict__")
        if descriptor is not None:
            if type(descriptor) is not types.GetSetDescriptorType:
                return None
            found = descriptor.__get__(holder)
            return found if type(found) is dict else None
    return None


def _label(holder: Any, modules: Mapping[int, str]) -> tuple[str, bool]:
    """What a holder is called, and whether that is a root."""
    if (module := modules.get(id(holder))) is not None:
        return _clipped(module, _NAME_MAX), True
    if _is(holder, type):
        name = type_name(holder)
        return name, "<locals>" not in name
    return _name_of_code(holder) or type_name(type(holder)), False


def _name_of_code(holder: Any) -> str:
    """What belongs to code is called by that; empty for other objects."""
    kind = type(holder)
    if kind is types.FunctionType:
        return _function_name(holder)
    if id(kind) in _GENERATORS:
        return f"{type_name(kind)} {_code_name(_GENERATORS[id(kind)](holder))}"
    if kind is types.FrameType:
        return f"frame of {_code_name(_code_of_frame(holder))}"
    if kind is _LRU_CACHE:
        wrapped = (_namespace(holder) or {}).get("__wrapped__")
        is_function = type(wrapped) is types.FunctionType
        # By the type's own method, which runs no code of the user's.
        cache = f"lru_cache(maxsize={_LRU_CACHE.cache_info(holder).maxsize})"
        return f"{cache} of {_function_name(wrapped)}" if is_function else cache
    return ""


def _function_name(function: Any) -> str:
    return (
        f"{_text(_FUNCTION['__module__'](function))}.{_text(_FUNCTION['__qualname__'](function))}"
    )


def _code_name(code: Any) -> str:
    # co_qualname is there from CPython 3.11 on.
    return _text(getattr(code, "co_qualname", None) or code.co_name)


def _is_our_frame(each: object) -> bool:
    return type(each) is types.FrameType and each.f_code.co_filename == __file__


def _is(each: object, cls: type) -> bool:
    """`isinstance` that does not ask the object."""
    return issubclass(type(each), cls)


def _base(each: object, bases: Mapping[type, Any]) -> Any:
    return _base_of(type(each), bases)


def _base_of(kind: type, bases: Mapping[type, Any]) -> Any:
    return next((base for base in bases if issubclass(kind, base)), None)


def _text(name: object) -> str:
    return _clipped(name, _NAME_MAX) if type(name) is str else "?"


def _clipped(name: str, most: int = _CHAIN_MAX) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
