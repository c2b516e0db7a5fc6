"""Objects are counted by type and traced to what holds them, and no code of theirs is called."""

from __future__ import annotations

import functools
import gc
import sys
import weakref
from array import array
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, ClassVar

import pytest

from otel_celery_memory.probes.objects import (
    LENGTHS_MAX,
    LEVELS_MAX,
    HolderSearch,
    attribute_name,
    count_by_type,
    grown_containers,
    ids_of,
    last_entries,
    lengths,
    live_objects,
    module_namespaces,
    new_objects,
    type_name,
    with_ids,
)

HERE = __name__


class Thing:
    """What is searched for."""


class Owner:
    """Holds things in its attributes."""

    kept: ClassVar[list[Thing]] = []

    def __init__(self) -> None:
        self.things: list[Thing] = []


class Slotted:
    __slots__ = ("kept", "other")
    kept: Thing


GLOBAL: list[Any] = []
NAMED: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    GLOBAL.clear()
    NAMED.clear()
    Owner.kept.clear()


def chain_of(*things: object) -> tuple[str, int]:
    """The chain that is found for these objects."""
    search = HolderSearch(map(id, things), {})
    del things
    search.climb(gc.get_objects(), module_namespaces())
    return search.chain()


class Hostile(type):
    """A metaclass whose every look-up is a mistake."""

    def _forbidden(cls, *_: object) -> Any:
        raise AssertionError("code of the user's was called")

    __hash__ = __eq__ = __repr__ = __getattribute__ = __instancecheck__ = _forbidden


def hostile() -> Any:
    def forbidden(*_: object) -> Any:
        raise AssertionError("code of the user's was called")

    names = (
        "__hash__",
        "__eq__",
        "__repr__",
        "__getattribute__",
        "__len__",
        "__iter__",
        "__bool__",
    )
    more = ("__reversed__", "__contains__", "__sizeof__")
    body: dict[str, Any] = dict.fromkeys((*names, *more), forbidden)
    body["__class__"] = property(forbidden)
    body["__dict__"] = property(forbidden)
    return body


def test_a_type_is_called_by_its_module_and_qualified_name() -> None:
    class Inner:
        pass

    assert type_name(Thing) == f"{HERE}.Thing"
    assert type_name(Inner) == (
        f"{HERE}.test_a_type_is_called_by_its_module_and_qualified_name.<locals>.Inner"
    )
    assert [type_name(each) for each in (dict, OrderedDict, array)] == [
        *("dict", "collections.OrderedDict", "array.array")
    ]


def test_a_type_without_a_module_or_with_a_strange_one_has_a_name_too() -> None:
    class Moved:
        pass

    Moved.__module__ = 7  # type: ignore[assignment]
    assert type_name(Moved).startswith("?.test_a_type_without")
    assert len(type_name(type("x" * 5_000, (), {}))) < 500


def test_objects_are_counted_by_type_whole_or_in_part() -> None:
    things = [Thing() for _ in range(1_000)]
    assert count_by_type([*things, {}, {}]) == {id(Thing): 1_000, id(dict): 2}
    assert count_by_type(things, 7) == {id(Thing): 143 * 7}


def test_no_code_of_hostile_objects_or_of_their_metaclass_is_called() -> None:
    bases: tuple[Any, ...] = (object, list, dict, set, deque)
    make: Any = type.__new__
    kinds = [make(Hostile, "Thing", (base,), {**hostile(), "__slots__": ()}) for base in bases]
    made = [base.__new__(kind) for base, kind in zip(bases, kinds, strict=True)]
    dict.update(made[2], {number: Thing() for number in range(200)})
    list.extend(made[1], [Thing() for _ in range(200)])
    GLOBAL.append(made)
    objects = gc.get_objects()
    counts = count_by_type(objects)
    assert counts[id(kinds[1])] == 1
    found = lengths(objects)
    assert (found[id(made[1])], found[id(made[2])]) == (200, 200)
    rows = new_objects(objects, counts, {id(kind): 1 for kind in kinds}, array("Q"))
    assert {row.type_name for row in rows} == {f"{HERE}.Thing"}
    assert len(last_entries(made[2], 5)) == 5
    grown_containers(objects, {}, found, 10)
    first, second = list.__getitem__(made[1], 0), next(iter(dict.values(made[2])))
    root = f"{HERE}.GLOBAL → list[…] → list[…]"
    assert chain_of(first) == (f"{root} → {HERE}.Thing[…]", 1)
    assert chain_of(second) == (f"{root} → {HERE}.Thing[…]", 1)
    assert chain_of(made[0]) == (root, 1)
    assert attribute_name(made[0], first) == ""


def test_a_finalizer_is_not_called_and_a_weak_reference_dies_when_it_would() -> None:
    finalized: list[int] = []

    class Mortal:
        def __del__(self) -> None:
            finalized.append(1)

    GLOBAL.append(Mortal())
    reference = weakref.ref(GLOBAL[0])
    search = HolderSearch([id(GLOBAL[0])], {})
    search.climb(gc.get_objects(), module_namespaces(), lambda: False)
    assert (finalized, reference() is not None) == ([], True)
    GLOBAL.clear()
    assert (finalized, reference()) == ([1], None)
    # It has died between two steps: nothing is found, and nothing is wrong.
    search.climb(gc.get_objects(), module_namespaces())


def in_a_closure() -> Callable[[], object]:
    seen = [Thing()]
    return lambda: seen


@functools.cache
def cached(number: int) -> Thing:
    del number
    return Thing()


def a_generator() -> Iterator[object]:
    kept = [Thing()]
    yield kept[0]
    yield kept


def with_default(kept: list[Thing] = [Thing()]) -> list[Thing]:  # noqa: B006, B008
    return kept


def test_the_root_of_a_chain_is_the_name_in_a_module() -> None:
    GLOBAL.append(Thing())
    assert chain_of(GLOBAL[0]) == (f"{HERE}.GLOBAL → list[…]", 1)


def test_keys_of_a_plain_dict_are_values_of_the_user_and_not_told() -> None:
    NAMED["4111 1111 1111 1111"] = {"secret": [Thing()]}
    held = NAMED["4111 1111 1111 1111"]["secret"][0]
    chain = f"{HERE}.NAMED → dict[…] → dict[…] → list[…]"
    assert chain_of(held) == (chain, 1)


def test_attributes_of_classes_and_instances_are_told_by_name() -> None:
    Owner.kept.append(Thing())
    assert chain_of(Owner.kept[0]) == (f"{HERE}.Owner.kept → list[…]", 1)
    owner, slotted = Owner(), Slotted()
    owner.things.append(Thing())
    slotted.kept = Thing()
    GLOBAL.extend([owner, slotted])
    assert chain_of(owner.things[0]) == (
        f"{HERE}.GLOBAL → list[…] → {HERE}.Owner.things → list[…]",
        1,
    )
    assert vars(owner)["things"] is owner.things  # now it has a dict of its own
    assert chain_of(owner.things[0]) == (
        f"{HERE}.GLOBAL → list[…] → {HERE}.Owner.things → list[…]",
        1,
    )
    assert chain_of(slotted.kept) == (f"{HERE}.GLOBAL → list[…] → {HERE}.Slotted.kept", 1)


def test_closures_caches_defaults_and_generators_are_told_by_the_name_of_their_code() -> None:
    closure, generator = in_a_closure(), a_generator()
    GLOBAL.extend([closure, generator])
    next(generator)
    seen: Any = closure()
    root = f"{HERE}.GLOBAL → list[…]"
    found = chain_of(seen[0])[0]
    assert found == f"{root} → {HERE}.in_a_closure.<locals>.<lambda> closure seen → list[…]"
    cache = f"lru_cache(maxsize=None) of {HERE}.cached"
    assert chain_of(cached(1))[0] == f"{HERE}.cached → {cache} → dict[…]"
    assert chain_of(with_default()[0])[0] == (
        f"{HERE}.with_default → {HERE}.with_default default → list[…]"
    )
    kept: Any = generator.gi_frame.f_locals["kept"][0]  # type: ignore[attr-defined]
    found = chain_of(kept)[0]
    assert found.startswith(f"{root} → generator ")
    assert "a_generator" in found
    generator.close()  # type: ignore[attr-defined]


def test_of_objects_in_a_circle_that_nothing_else_holds_it_is_said_that_nobody_is_known() -> None:
    one, other = [Thing()], [Thing()]
    one.append(other)  # type: ignore[arg-type]
    other.append(one)  # type: ignore[arg-type]
    found, alike = chain_of(one[0])
    assert alike == 1
    # The variable of a function that runs can be seen until CPython 3.10.
    assert "a running function, or native code" in found or "frame of" in found


def test_a_circle_below_a_root_does_not_hide_it() -> None:
    parent: dict[str, Any] = {"children": []}
    for _ in range(3):
        parent["children"].append({"parent": parent, "thing": Thing()})
    GLOBAL.append(parent)
    things = [child["thing"] for child in parent["children"]]
    found = chain_of(*things)
    assert found == (f"{HERE}.GLOBAL → list[…] → dict[…] → list[…] → dict[…]", 3)


def test_sets_queues_and_tuples_hold_like_lists() -> None:
    things = [Thing() for _ in range(4)]
    GLOBAL.extend([{things[0]}, frozenset([things[1]]), deque([things[2]]), (things[3], 1)])
    root = f"{HERE}.GLOBAL → list[…]"
    assert [chain_of(each)[0] for each in things] == [
        f"{root} → {kind}[…]" for kind in ("set", "frozenset", "collections.deque", "tuple")
    ]


def test_what_most_of_the_sample_is_held_by_is_the_chain() -> None:
    GLOBAL.append([Thing() for _ in range(7)])
    Owner.kept.append(Thing())
    found = chain_of(*GLOBAL[0], Owner.kept[0])
    assert found == (f"{HERE}.GLOBAL → list[…] → list[…]", 7)


def test_a_chain_that_is_too_long_ends_in_an_ellipsis_and_so_does_its_text() -> None:
    held: Any = [Thing()]
    thing = held[0]
    for _ in range(3 * LEVELS_MAX):
        held = [held]
    GLOBAL.append(held)
    found = chain_of(thing)[0]
    assert found == " → ".join(["…", *["list[…]"] * LEVELS_MAX])


def test_a_second_search_goes_up_to_what_the_first_one_has_found() -> None:
    GLOBAL.append([Thing(), [Thing()]])
    known: dict[int, str] = {}
    first = HolderSearch([id(GLOBAL[0][0])], known)
    first.climb(gc.get_objects(), module_namespaces())
    second = HolderSearch([id(GLOBAL[0][1][0])], known)
    levels: list[int] = []

    def goes_on() -> bool:
        levels.append(1)
        return True

    second.climb(gc.get_objects(), module_namespaces(), goes_on)
    assert second.chain() == (f"{HERE}.GLOBAL → list[…] → list[…] → list[…]", 1)
    assert len(levels) == 2


def test_a_module_of_a_strange_kind_among_the_imported_ones_does_no_harm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Lazy(ModuleType):
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError("it was loaded")

    monkeypatch.setitem(sys.modules, "lazy", Lazy("lazy"))
    monkeypatch.setitem(sys.modules, "none", None)
    monkeypatch.setitem(sys.modules, "object", object())
    names = module_namespaces().values()
    assert "lazy" in names
    assert not {"none", "object"} & set(names)


def test_new_objects_are_told_from_those_that_were_there_before() -> None:
    class Thing:
        pass

    GLOBAL.extend(Thing() for _ in range(20_000))
    old = ids_of(gc.get_objects())
    before = count_by_type(gc.get_objects())
    fresh = [Thing() for _ in range(200)]
    objects = gc.get_objects()
    counts = count_by_type(objects)
    growth = {id(Thing): counts[id(Thing)] - before[id(Thing)]}
    (row,) = new_objects(objects, counts, growth, old)
    assert (row.type_name.rpartition(".")[2], row.objects, row.growth) == ("Thing", 20_200, 200)
    assert len(row.ids) == 8
    assert set(row.ids) <= set(map(id, fresh))


def test_where_most_of_the_growth_was_there_when_ids_were_noted_the_rest_is_no_sample() -> None:
    class Thing:
        pass

    before = [Thing() for _ in range(30)]
    old = ids_of(gc.get_objects())
    fresh = [Thing() for _ in range(3)]
    objects = gc.get_objects()
    (row,) = new_objects(objects, count_by_type(objects), {id(Thing): 33}, old)
    assert (len(before), row.ids) == (30, ())
    fresh += [Thing() for _ in range(7)]
    objects = gc.get_objects()
    (row,) = new_objects(objects, count_by_type(objects), {id(Thing): 40}, old)
    assert set(row.ids) <= set(map(id, fresh))
    assert row.ids


def test_containers_of_text_that_grew_are_found_with_what_they_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts, few, tracked = [str(n) for n in range(500)], ["a"], [Thing() for _ in range(500)]
    held: dict[object, object] = {}
    # The collector does not track a dict of numbers and bytes.
    NAMED["held"] = Owner()
    vars(NAMED["held"])["cache"] = held
    monkeypatch.setitem(globals(), "OWNER", NAMED["held"])
    GLOBAL.extend([texts, few, tracked])
    before = lengths(live_objects())
    texts.extend(str(n) for n in range(1_000))
    held.update({n: bytes(9) for n in range(300)})
    few.extend("b" for _ in range(50))
    tracked.extend(Thing() for _ in range(500))
    objects = live_objects()
    now = lengths(objects)
    ours = frozenset((id(before), id(now)))
    rows = grown_containers(objects, before, now, 10, ours)
    found = [(row.type_name, row.objects, row.growth, row.ids) for row in rows]
    assert found[:2] == [("str", 1_500, 1_000, (id(texts),)), ("bytes", 300, 200, (id(held),))]
    assert not {id(few), id(tracked)} & {row.ids[0] for row in rows}
    search = HolderSearch([id(held)], {})
    search.climb(live_objects(), module_namespaces())
    assert search.chain()[0].endswith(f"{HERE}.Owner.cache")


def test_of_very_many_long_containers_the_longest_are_kept() -> None:
    held = [[None] * 101 for _ in range(LENGTHS_MAX)]
    longest = [[None] * 500 for _ in range(3)]
    found = lengths([*held, *longest])
    assert len(found) == LENGTHS_MAX
    assert all(found[id(each)] == 500 for each in longest)


def test_extension_types_without_support_of_the_collector_are_held_like_any_other() -> None:
    numbers = bytearray(9)
    assert not gc.is_tracked(numbers)
    owner = Owner()
    owner.numbers = numbers  # type: ignore[attr-defined]
    GLOBAL.append(owner)
    search = HolderSearch([id(numbers)], {})
    # It is not among those that are listed.
    search.climb([*gc.get_objects(), numbers], module_namespaces())
    assert search.chain() == (f"{HERE}.GLOBAL → list[…] → {HERE}.Owner.numbers", 1)


def test_an_identity_that_nobody_has_any_more_is_passed_over() -> None:
    assert with_ids(gc.get_objects(), [7]) == []
    search = HolderSearch([7], {})
    search.climb(gc.get_objects(), module_namespaces())
    assert (search.done, search.chain()) == (True, ("a running function, or native code", 1))
    nobody = HolderSearch([], {})
    assert (nobody.done, nobody.chain()) == (True, ("", 0))


def test_nothing_is_left_behind_in_cycles_that_keep_the_user_s_objects_alive() -> None:
    GLOBAL.extend(Thing() for _ in range(300))

    def whole_census() -> None:
        objects = live_objects()
        counts, old, found = count_by_type(objects), ids_of(objects), lengths(objects)
        new_objects(objects, counts, {id(Thing): 1}, old)
        grown_containers(objects, {}, found, 5)
        chain_of(GLOBAL[0])

    whole_census()
    gc.collect()
    gc.disable()
    try:
        whole_census()
        assert gc.collect() == 0
    finally:
        gc.enable()
