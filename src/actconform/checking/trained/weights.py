"""What became of every trained weight in an exported graph, bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform.checking.trained.weight_absent import settle_absent
from actconform.checking.trained.weight_batch_norm import match_batch_norms
from actconform.checking.trained.weight_check import WeightCheck, WeightsComparison
from actconform.checking.trained.weight_copies import settle_altered_copies, settle_copies
from actconform.checking.trained.weight_different import match_different
from actconform.checking.trained.weight_ledger import Ledger
from actconform.checking.trained.weight_merged import match_merged, match_sums
from actconform.checking.trained.weight_orientation import check_orientations
from actconform.checking.trained.weight_quantized import match_quantized
from actconform.checking.trained.weight_rounding import possible_roundings
from actconform.checking.trained.weight_whole import match_whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actconform.checking.flatten import FlatGraph
    from actconform.checking.trained.weight_values import Array
    from actconform.types.trained import LayerRecord

__all__ = ["WeightCheck", "WeightsComparison", "compare_weights"]


def compare_weights(
    parameters: Mapping[str, Array], graph: FlatGraph, layers: Sequence[LayerRecord]
) -> WeightsComparison:
    """Return what became of every weight in a graph.

    `parameters` by name, as they were trained; `layers` of a run of the model tell which layer owns a weight and which follow each other
    (they may be none). Names decide nothing but which of several equal arrays is which.
    """
    ledger = Ledger(parameters, graph, layers)
    match_whole(ledger)
    roundings = possible_roundings(ledger)
    for rounding in roundings:
        match_whole(ledger, rounding)
    match_merged(ledger)
    for rounding in roundings:
        match_merged(ledger, rounding)
    match_sums(ledger)
    match_batch_norms(ledger)
    match_quantized(ledger)
    settle_copies(ledger)
    match_different(ledger)
    settle_copies(ledger)
    settle_altered_copies(ledger)
    settle_absent(ledger)
    check_orientations(ledger)
    return ledger.result()
