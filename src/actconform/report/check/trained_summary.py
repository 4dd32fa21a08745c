"""A trained model beside a graph in words: which layers have a partner, and what became of the weights."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from actconform.report.check.summary import SENTENCE_LETTERS, name_shown
from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actconform.checking.result import CheckResult, RuntimeCheck, TrainedCheck

LAYERS_SHOWN = 5  # of those without a partner
TOLD_ELSEWHERE = (
    "folded into",
    "it gives no floats",
)  # in a sentence of its own, or nothing that could differ by rounding
WEIGHTS_SHOWN = 5  # of those that are not as trained
EXACT = ("transposed", "reshaped", "reordered", "merged", "split")
HARMLESS = ("identical", *EXACT, "unused", "indistinct", "folded")


def trained_of(result: CheckResult, runtime: RuntimeCheck) -> TrainedCheck | None:
    """Return how the trained model of a column lies in the graph; None for a runtime."""
    columns = [column.name for column in result.runtimes]
    place = next((i for i, column in enumerate(result.runtimes) if column is runtime), columns.index(runtime.name))
    return result.trained[place] if place < len(result.trained) else None  # trained models stand first


def layer_sentences(trained: TrainedCheck) -> Iterator[str]:
    """Yield how many layers have a partner in the graph, and which have none, with the reason."""
    if not trained.matches and not trained.unmatched:
        yield "no layers were matched: the outputs alone were compared"
        return
    names = {match.layer for match in trained.matches} | {alias for match in trained.matches for alias in match.aliases}
    how = Counter(match.by for match in trained.matches)
    by = ", ".join(f"{count:,} by {way}" for way, count in how.most_common())
    yield f"{len(names):,} of {len(names) + len(trained.unmatched):,} have a partner in the graph{f' ({by})' if by else ''}"
    yield from (one_line(sentence, SENTENCE_LETTERS) for sentence in trained.fused[:LAYERS_SHOWN])
    if len(trained.fused) > LAYERS_SHOWN:
        yield f"and {len(trained.fused) - LAYERS_SHOWN:,} more that are fused"
    alone = [layer for layer in trained.unmatched if not layer.reason.startswith(TOLD_ELSEWHERE)]
    for layer in alone[:LAYERS_SHOWN]:
        yield f"{name_shown(layer.layer) or 'the model itself'} has none: {one_line(layer.reason, SENTENCE_LETTERS)}"
    if len(alone) > LAYERS_SHOWN:
        yield f"and {len(alone) - LAYERS_SHOWN:,} more without a partner, all in check.json"


def weight_sentences(trained: TrainedCheck) -> Iterator[str]:
    """Yield how many weights are in the graph as they were trained, and what became of the others."""
    if not trained.weights:
        return
    states = Counter(check.state for check in trained.weights)
    exact = sum(check.exact for check in trained.weights)
    ways = ", ".join(f"{count:,} {state}" for state, count in states.items() if state in EXACT)
    others = [f"{states['folded']:,} folded into others"] if states["folded"] else []
    others += [f"{states['unused']:,} that no output needs"] if states["unused"] else []
    others += [f"{states['indistinct']:,} of one or two values that cannot be told"] if states["indistinct"] else []
    bits = f"{exact:,} of {len(trained.weights):,} are in the graph bit for bit{f' ({ways})' if ways else ''}"
    yield ", ".join([bits, *others])
    changed = [check for check in trained.weights if check.state not in HARMLESS]
    changed.sort(key=lambda check: check.state not in ("different", "missing"))
    for check in changed[:WEIGHTS_SHOWN]:
        yield f"{name_shown(check.parameter)}: {one_line(check.words, SENTENCE_LETTERS)}"
    if len(changed) > WEIGHTS_SHOWN:
        rest = Counter(check.state for check in changed[WEIGHTS_SHOWN:])
        yield f"and {', '.join(f'{count:,} {state}' for state, count in rest.most_common())} more, all in check.json"
