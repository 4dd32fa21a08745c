"""Square matrices that a graph reads the wrong way round: their values alone do not show it, their use does."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, TypeAlias

from actconform.checking.trained.weight_layouts import WeightLayout
from actconform.checking.trained.weight_rounding import deviation_of

if TYPE_CHECKING:
    from actconform.checking.flatten import FlatNode
    from actconform.checking.trained.weight_ledger import Ledger

    Use: TypeAlias = tuple[str, str, tuple[str, ...]]

AS_TRAINED, TURNED = "identical", "transposed"
# Layers whose weight [out, in] or [in, out] multiplies from the right; others are judged by their like alone.
OUT_FIRST, IN_FIRST = ("torch.nn.modules.linear.Linear",), ("keras.src.layers.core.dense.Dense",)


def check_orientations(ledger: Ledger) -> None:
    """Settle anew, as different, the square weights that are read otherwise than their layer needs, or than others of their kind are.

    The others are weights of the same name in layers of the same kind that a graph reads by the same operators. Those that are not square
    cannot be the wrong way round, so they decide; without them three quarters of the square ones must agree.
    """
    votes: dict[Use, Counter[str]] = defaultdict(Counter)
    square_votes: dict[Use, Counter[str]] = defaultdict(Counter)
    for parameter, check in ledger.checks.items():
        if check.state in {AS_TRAINED, TURNED} and len(check.shape) == 2 and ledger.kind_of.get(parameter):
            table = square_votes if check.shape[0] == check.shape[1] else votes
            table[_use(ledger, parameter)][check.state] += 1
    for use, squares in square_votes.items():
        right = _right_state(use, votes[use], squares)
        wrong = {AS_TRAINED: TURNED, TURNED: AS_TRAINED}.get(right)
        for parameter, check in list(ledger.checks.items()):
            if check.state == wrong and _is_square(check.shape) and _use(ledger, parameter) == use:
                _settle_wrong(ledger, parameter, right)


def _is_square(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 and shape[0] == shape[1] > 1


def _use(ledger: Ledger, parameter: str) -> Use:
    """Return the kind of layer, the name of its weight, and how the graph reads that."""
    name = ledger.checks[parameter].initializers[0]
    reads = sorted({_read(node, name) for node in ledger.readers[name]})
    return ledger.kind_of.get(parameter, ""), parameter.replace("/", ".").rpartition(".")[2], tuple(reads)


def _read(node: FlatNode, name: str) -> str:
    turns = [item.name for item in node.proto.attribute if item.name in {"transA", "transB"} and item.i]
    turns += [f"perm={list(item.ints)}" for item in node.proto.attribute if item.name == "perm"]
    return " ".join([node.proto.op_type, str(list(node.proto.input).index(name)), *sorted(turns)])


def _right_state(use: Use, rectangles: Counter[str], squares: Counter[str]) -> str:
    """Return how a weight must lie for this use; "" where nothing shows it."""
    kind, _, reads = use
    if kind in OUT_FIRST or kind in IN_FIRST:
        if reads in {("MatMul 1",), ("Gemm 1",)}:
            return TURNED if kind in OUT_FIRST else AS_TRAINED
        if reads == ("Gemm 1 transB",):
            return AS_TRAINED if kind in OUT_FIRST else TURNED
    for votes, share in ((rectangles, 1.0), (squares, 0.75)):
        if votes:
            state, count = votes.most_common(1)[0]
            return state if count >= share * votes.total() and votes.total() > 1 else ""
    return ""


def _settle_wrong(ledger: Ledger, parameter: str, right: str) -> None:
    check = ledger.checks[parameter]
    constant = ledger.constant(check.initializers[0])
    axes = (0, 1) if right == AS_TRAINED else (1, 0)
    deviation = deviation_of(ledger.trained(parameter), constant, WeightLayout(axes, constant.shape))
    if deviation.differing:
        text = f"{'transposed' if right == AS_TRAINED else 'not transposed'}, contrary to what its use needs"
        ledger.settle(parameter, check.initializers, "different", text, kind="transposed wrongly", deviation=deviation)
