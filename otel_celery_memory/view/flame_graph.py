"""The stacks of a capture as a flame graph: a place holds what it and its callees allocated. Pure.

The outermost place comes first. Sites that freed more than they left have no width: they are left
out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from otel_celery_memory.captures.model import Capture, CapturedSite, ShortNames

BOXES_MAX = 400
"""The largest ones are kept, each with its callers."""


@dataclass(frozen=True)
class Box:
    """One place below its callers; ``start_bytes`` is where it begins, from the left."""

    name: str
    depth: int
    start_bytes: int
    size_bytes: int
    blocks: int


@dataclass
class _Node:
    name: str
    size_bytes: int = 0
    blocks: int = 0
    callees: dict[str, _Node] = field(default_factory=dict)

    def callee(self, name: str, site: CapturedSite) -> _Node:
        """The node below with that name, with the site added to it."""
        node = self.callees.get(name)
        if node is None:
            node = self.callees[name] = _Node(name)
        node.size_bytes += site.size_bytes
        node.blocks += site.blocks
        return node


def flame_graph(capture: Capture) -> list[Box]:
    """The boxes, each before its callees and these by size; empty where no site has a stack.

    If sites belong to tasks, the task is the outermost box.
    """
    if not any(len(site.stack) > 1 for site in capture.sites):
        return []
    root = _tree(capture)
    kept = _largest(root)
    return list(_boxes(root, kept, -1, 0))


def _tree(capture: Capture) -> _Node:
    short = ShortNames(capture.sites)
    functions = {(site.path, site.line): site.function for site in capture.sites if site.function}
    names: dict[tuple[str, int], str] = {}
    by_task = any(site.task for site in capture.sites)
    root = _Node("")
    for site in capture.sites:
        if site.size_bytes <= 0:
            continue
        node = root.callee(site.task or "no task", site) if by_task else root
        for frame in site.stack or ((site.path, site.line),):
            if frame not in names:
                function = functions.get(frame)
                place = short.place(*frame)
                names[frame] = f"{place} in {function}" if function else place
            node = node.callee(names[frame], site)
    return root


def _largest(root: _Node) -> set[int]:
    """The identities of the nodes that are kept. A caller is at least as large as its callee."""
    kept: set[int] = set()
    order = count()
    ahead: list[tuple[int, int, _Node]] = []

    def look_below(node: _Node) -> None:
        for callee in node.callees.values():
            heappush(ahead, (-callee.size_bytes, next(order), callee))

    look_below(root)
    while ahead and len(kept) < BOXES_MAX:
        node = heappop(ahead)[-1]
        kept.add(id(node))
        look_below(node)
    return kept


def _boxes(node: _Node, kept: set[int], depth: int, start_bytes: int) -> Iterator[Box]:
    if depth >= 0:
        yield Box(node.name, depth, start_bytes, node.size_bytes, node.blocks)
    callees = [each for each in node.callees.values() if id(each) in kept]
    for callee in sorted(callees, key=lambda each: (-each.size_bytes, each.name)):
        yield from _boxes(callee, kept, depth + 1, start_bytes)
        start_bytes += callee.size_bytes
