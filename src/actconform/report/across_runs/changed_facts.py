"""The facts that changed between two runs: versions and settings that may explain a difference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform.types import Route
from actconform.types.report import Change

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from actconform.types.report import Facts


def changed(before: Facts, after: Facts) -> tuple[Change, ...]:
    """Return the facts that differ in `after`, those of actconform and its goldens first, under the backend "".

    A backend that only one of the two has is left out: its cases appear or disappear.
    """
    return tuple(_changed(before, after))


def _changed(before: Facts, after: Facts) -> Iterator[Change]:
    harness_facts = (("actconform", before.actconform, after.actconform), ("goldens", before.goldens, after.goldens))
    for fact, was, is_ in harness_facts:
        if was != is_:
            yield Change("", fact, was, is_)
    for backend, facts in after.backends.items():
        old = before.backends.get(backend)
        for fact in {**old, **facts} if old and facts else ():
            was, is_ = (old or {}).get(fact, ""), facts.get(fact, "")
            if was != is_:
                yield Change(backend, fact, was, is_)


def of_route(changes: Iterable[Change], route: str) -> tuple[Change, ...]:
    """Return the changes that may show on a route: its backend's, and where a graph is exported, those of every framework."""
    way = Route.of(route)
    return tuple(change for change in changes if way.exported or change.backend in ("", way.backend, way.worker))


def change_in_words(change: Change) -> str:
    """Return a change as text: "torch: torch 2.12.0 -> 2.13.0"."""
    where = f"{change.backend}: " if change.backend else ""
    return f"{where}{change.fact} {change.before or 'unknown'} -> {change.after or 'unknown'}"
