"""A search for sizes of a model's inputs that a run takes: a first, then others that differ in batch and in the rest."""

from __future__ import annotations

import heapq
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from actconform.checking.sizes import Sizing, Symbol

Refusal: TypeAlias = "Callable[[Sizing], str | None]"
"""Why inputs of these sizes are refused, in words; None where they are taken."""

MOST_TRIES = 150  # of sizes, until a run takes them
MOST_VARIATIONS = 40  # of them, for each further sizing
MOST_CHOICES = 3  # further sizings for values that decide


def sizings(symbols: Sequence[Symbol], refusal: Refusal) -> tuple[list[Sizing], str]:
    """Return sizings with which the model runs: a first, others in which batch and other sizes differ, and each further choice.

    None where none of MOST_TRIES is taken. Beside them the first refusal.
    """
    as_demanded = [
        replace(symbol, candidates=symbol.candidates[:1]) if symbol.kind == "demanded" else symbol for symbol in symbols
    ]
    base, words = search(as_demanded, refusal, {}, MOST_TRIES)
    if base is None and as_demanded != list(symbols):
        base, words = search(symbols, refusal, {}, MOST_TRIES)
    if base is None:
        return [], words
    sizes = [symbol for symbol in symbols if symbol.kind in {"batch", "size"}]
    results = [base, *_resized(sizes, base, refusal)]
    for choice in [symbol for symbol in symbols if symbol.kind == "choice"][:MOST_CHOICES]:
        for option in _changed(choice, base).candidates:
            near_base = [replace(size, candidates=(base[size.name], *size.candidates)) for size in sizes]
            further, _ = search(near_base, refusal, {**base, choice.name: option}, MOST_VARIATIONS)
            if further is not None and further not in results:
                results.append(further)
                break
    return results, words


def search(symbols: Sequence[Symbol], refusal: Refusal, fixed: Sizing, most_tries: int) -> tuple[Sizing | None, str]:
    """Return the first sizing that is not refused, candidates early in their lists first, and the first refusal.

    `fixed` has the sizes of the symbols that are not searched.
    """
    first_refusal = ""
    for tries, sizes in enumerate(_diagonal([symbol.candidates for symbol in symbols])):
        if tries >= most_tries:
            break
        sizing = {**fixed, **{symbol.name: size for symbol, size in zip(symbols, sizes, strict=True)}}
        words = refusal(sizing)
        if words is None:
            return sizing, first_refusal
        first_refusal = first_refusal or f"{sizing_in_words(sizing)}: {words}"
    return None, first_refusal


def sizing_in_words(sizing: Mapping[str, int]) -> str:
    """Return sizes in words."""
    return ", ".join(f"{one_line(name, 60)} = {size}" for name, size in sizing.items()) or "the sizes that it declares"


def _resized(sizes: Sequence[Symbol], base: Sizing, refusal: Refusal) -> list[Sizing]:
    """Return a sizing in which all sizes differ from `base`; where none is taken, some in which one or a few do."""
    if not sizes:
        return []
    second, _ = search([_changed(symbol, base) for symbol in sizes], refusal, base, MOST_VARIATIONS)
    if second is not None:
        return [second]
    batch = [symbol for symbol in sizes if symbol.kind == "batch"]
    rest = [symbol for symbol in sizes if symbol.kind == "size"]
    groups = [group for group in (batch, rest) if group and len(group) < len(sizes)]
    results = [varied for group in groups if (varied := _varied(group, sizes, base, refusal)) is not None]
    if results or len(sizes) == 1:
        return results
    singles = (_varied([symbol], sizes, base, refusal) for symbol in sizes)
    return [varied for varied in singles if varied is not None][:1]


def _varied(group: Sequence[Symbol], sizes: Sequence[Symbol], base: Sizing, refusal: Refusal) -> Sizing | None:
    """Return a sizing in which the sizes of `group` differ from `base`; another may have to follow the first of them."""
    sizing, _ = search([_changed(symbol, base) for symbol in group], refusal, base, MOST_VARIATIONS)
    if sizing is not None:
        return sizing
    leader = _changed(group[0], base)
    followers = [each for each in sizes if each not in group and base[each.name] == base[leader.name]]
    attempts = [
        {**base, leader.name: size, follower.name: size} for follower in followers for size in leader.candidates[:4]
    ]
    return next((attempt for attempt in attempts if refusal(attempt) is None), None)


def _changed(symbol: Symbol, base: Sizing) -> Symbol:
    """Return a symbol without the candidate of `base`."""
    rest = tuple(size for size in symbol.candidates if size != base[symbol.name])
    return replace(symbol, candidates=rest)


def _diagonal(candidates: Sequence[Sequence[int]]) -> Iterator[tuple[int, ...]]:
    """Yield all combinations, by the sum of their places in the lists."""
    start = (0,) * len(candidates)
    waiting, visited = [(0, start)], {start}
    while waiting:
        total, places = heapq.heappop(waiting)
        yield tuple(options[place] for options, place in zip(candidates, places, strict=True))
        for i, options in enumerate(candidates):
            further = (*places[:i], places[i] + 1, *places[i + 1 :])
            if places[i] + 1 < len(options) and further not in visited:
                visited.add(further)
                heapq.heappush(waiting, (total + 1, further))
