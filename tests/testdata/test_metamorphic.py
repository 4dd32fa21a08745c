"""What must hold whatever the input: it holds of the exact answer in every format, and no injected fault passes for it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.special

from actconform.catalog.kernels import ROWS, UNARY
from actconform.catalog.models.zoo import networks
from actconform.oracle.layers.model import values
from actconform.oracle.rounding import round_to
from actconform.testdata.metamorphic import MetamorphicRelation, relations
from actconform.testdata.model_tensors import draw_inputs, draw_parameters
from actconform.types import ASPECTS
from actconform.types.dtypes import DTYPES

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Answer = Callable[[NDArray[np.float64], NDArray[np.float64] | None], Any]

STACK = next(model for model in networks() if model.name == "linear-stack")
NUMBERS = {name: array.astype(float) for name, array in {**draw_inputs(STACK), **draw_parameters(STACK)}.items()}
SUBJECTS = [kernel.name for kernel in UNARY + ROWS] + [model.name for model in networks()]
CLAIMS = {
    f"{one.subject} {one.relation}": one for name in SUBJECTS for aspect in ASPECTS for one in relations(name, aspect)
}
FORMATS = pytest.mark.parametrize("dtype", DTYPES)


def softmax(x: Any, cotangent: Any = None) -> Any:
    y = scipy.special.softmax(x, axis=-1)
    return y if cotangent is None else y * (cotangent - (cotangent * y).sum(axis=-1, keepdims=True))


def stack(x: Any, _: Any = None) -> Any:
    return values(STACK, {**NUMBERS, "x": x})["dense3"]


def maximum(x: Any, cotangent: Any) -> Any:
    ties = x == x.max(axis=-1, keepdims=True)
    return cotangent[..., None] * ties / ties.sum(axis=-1, keepdims=True)


EXACT: dict[str, Answer] = {
    "softmax": softmax,
    "max": maximum,
    "relu": lambda x, _: np.maximum(x, 0.0),
    "linear-stack": stack,
    "argmax": lambda x, _: x.argmax(axis=-1),
}


def why(relation: MetamorphicRelation, answer: Answer, dtype: str = "f32") -> str:
    """Return what is said of an implementation that rounds only its inputs and its answer to the format."""
    fmt = DTYPES[dtype]
    cotangents: Any = relation.cotangents or [None] * len(relation.inputs)
    answers = [
        round_to(np.asarray(answer(round_to(x, fmt), g), float), fmt)
        for x, g in zip(relation.inputs, cotangents, strict=True)
    ]
    return relation.violation(answers, fmt)


def the(relation: str) -> MetamorphicRelation:
    (found,) = (one for words, one in CLAIMS.items() if words.startswith(relation))
    return found


def test_the_claims_are_those_that_are_wanted() -> None:
    assert set(CLAIMS) == {
        "softmax is not negative and sums to 1",
        "softmax does not change when all logits are shifted",
        "softmax of one unit is the constant 1",
        "softmax of [z, 0] is sigmoid(z)",
        "softmax of one unit has no gradient",
        "softmax has a Jacobian of rank n - 1",
        "max passes on all of its gradient at ties",
        "relu is not negative",
        "linear-stack is linear",
        "argmax has no gradient",
    }
    assert [one.aspect for one in relations("softmax", "gradient")] == ["gradient", "gradient"]
    assert relations("elu", "value") == relations("relu", "gradient") == []


@FORMATS
@pytest.mark.parametrize("words", CLAIMS)
def test_a_claim_holds_of_the_exact_answer(words: str, dtype: str) -> None:
    assert why(CLAIMS[words], EXACT[CLAIMS[words].subject], dtype) == ""


@FORMATS
@pytest.mark.parametrize("words", [words for words in CLAIMS if words.startswith(("softmax", "max", "relu"))])
def test_inputs_are_numbers_of_every_format(words: str, dtype: str) -> None:
    for x in (*CLAIMS[words].inputs, *(CLAIMS[words].cotangents or ())):
        np.testing.assert_array_equal(round_to(x, DTYPES[dtype]), x)


def test_logits_differ_and_shift_exactly() -> None:
    wide, shifted = the("softmax does not change").inputs
    assert wide.shape == (4, 12)
    assert np.unique(wide).size > 20
    np.testing.assert_array_equal(shifted - wide, np.full((4, 12), 4.0))
    (five, *_) = the("softmax has a Jacobian").inputs
    sizes = np.linalg.svd(np.stack([softmax(five, row[None])[0] for row in np.eye(5)]), compute_uv=False)
    assert sizes[3] > 64 * 2.0**-8 * sizes[0]  # a rank that bf16 can tell
    first, moved = the("argmax").inputs
    assert not np.array_equal(first, moved)


def one_of(x: Any, index: int, value: float) -> Any:
    y = np.array(softmax(x), float)
    y.reshape(-1)[index] = value
    return y


def is_sum(x: Any) -> bool:
    return np.allclose(x, the("linear-stack is linear").inputs[2])


def tilted(x: Any, cotangent: Any) -> Any:
    """A Jacobian of full rank: the sum over the row was forgotten."""
    return softmax(x) * cotangent


FAULTS: list[tuple[str, Answer, str]] = [
    ("softmax is not negative", lambda x, _: softmax(x) * (1 + 1e-3), "sum of a softmax is off 1 by 0.001"),
    ("softmax is not negative", lambda x, _: softmax(x) * (1 - 1e-3), "sum of a softmax is off 1 by 0.001"),
    ("softmax is not negative", lambda x, _: one_of(x, 5, -1e-7), "negative element: -1.0000000"),
    ("softmax is not negative", lambda x, _: scipy.special.softmax(x, axis=0), "is off 1 by"),
    ("softmax is not negative", lambda x, _: scipy.special.expit(x), "is off 1 by"),
    ("softmax is not negative", lambda x, _: np.full(x.shape, np.inf), "is off 1 by inf"),
    ("softmax does not change", lambda x, _: softmax(x * np.where(x.max() > 8, 1.001, 1.0)), "plus 4 move the softmax"),
    ("softmax does not change", lambda x, _: np.exp(x) / (np.exp(x).sum(axis=-1, keepdims=True) + 1), "plus 4 move"),
    ("softmax of one unit is", lambda x, _: np.full(x.shape, 0.999), "softmax of one unit is 0.999"),
    ("softmax of one unit is", lambda x, _: np.full(x.shape, 1 + 2.0**-23), "softmax of one unit is 1.00000012"),
    ("softmax of one unit is", lambda x, _: scipy.special.expit(x), "softmax of one unit is 0."),
    ("softmax of [z, 0]", lambda x, _: softmax(2 * x), "is off sigmoid(z) by"),
    ("softmax of [z, 0]", lambda x, _: softmax(x)[:, ::-1], "is off sigmoid(z) by"),
    ("softmax of [z, 0]", lambda x, _: softmax(x) + 1e-5, "is off sigmoid(z) by 1e-05"),
    ("softmax of one unit has", lambda x, g: np.full(x.shape, 1e-30), "has the gradient 1e-30, not 0"),
    ("softmax of one unit has", lambda x, g: g * scipy.special.expit(x) * scipy.special.expit(-x), "has the gradient 0."),
    ("softmax has a Jacobian", tilted, "has rank 5, not 4"),
    ("softmax has a Jacobian", lambda x, g: 0.0 * x, "has rank 0, not 4"),
    ("softmax has a Jacobian", lambda x, g: softmax(x) * g.sum(), "has rank 1, not 4"),
    ("softmax has a Jacobian", lambda x, g: softmax(x, g) / 0.0, "is not finite"),
    ("max passes on", lambda x, g: g[..., None] * (x == x.max(axis=-1, keepdims=True)), "of a row sum to 4, not 1"),
    ("max passes on", lambda x, g: maximum(x, g) * (x != 0.5), "of a row sum to 0, not 1"),
    ("max passes on", lambda x, g: maximum(x, g) * (1 + 2.0**-20), "of a row sum to 1.00000095, not 1"),
    ("relu is not negative", lambda x, _: np.where(x > 0, x, 0.0125 * x), "relu gave -0.1"),
    ("relu is not negative", lambda x, _: np.where(x == -8, -1e-45, np.maximum(x, 0)), "relu gave -1.4"),
    ("linear-stack is linear", lambda x, _: np.maximum(stack(x), -1.0), "f(a + b) + f(0) is off f(a) + f(b) by"),
    ("linear-stack is linear", lambda x, _: stack(x) + 1e-3 * stack(x) ** 2, "is off f(a) + f(b) by"),
    ("linear-stack is linear", lambda x, _: np.where(x[:, :3] == 0, 1.0, stack(x)), "is off f(a) + f(b) by"),
    ("linear-stack is linear", lambda x, _: np.full((4, 3), np.inf if is_sum(x) else 1.0), "is off f(a) + f(b) by inf"),
    ("argmax has no gradient", lambda x, _: x.argmax(axis=-1) + 0.01 * x.max(axis=-1), "it has a gradient"),
    ("argmax has no gradient", lambda x, _: softmax(x) @ np.arange(4.0), "it has a gradient"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # injected divisions by 0
@pytest.mark.parametrize(("words", "fault", "said"), FAULTS)
def test_an_injected_fault_breaks_the_claim_and_is_told(words: str, fault: Answer, said: str) -> None:
    assert said in why(the(words), fault)


def test_every_claim_has_a_fault_that_breaks_it() -> None:
    assert {id(the(words)) for words, *_ in FAULTS} == {id(one) for one in CLAIMS.values()}


@FORMATS
def test_any_of_equals_may_have_the_gradient_of_a_maximum(dtype: str) -> None:
    relation = the("max passes on")
    for side in (1, -1):

        def one(x: Any, g: Any, side: int = side) -> Any:
            chosen = x[..., ::side].argmax(axis=-1)
            return (g[..., None] * np.eye(x.shape[-1])[chosen])[..., ::side]

        assert why(relation, one, dtype) == ""


@pytest.mark.parametrize(("dtype", "off"), [("f16", 0.02), ("bf16", 0.15)])
def test_a_large_fault_is_seen_in_16_bits_too(dtype: str, off: float) -> None:
    assert "is off 1 by" in why(the("softmax is not negative"), lambda x, _: softmax(x) * (1 + off), dtype)
    assert "softmax of one unit is" in why(the("softmax of one unit is"), lambda x, _: softmax(x) * 0.99, dtype)
    assert "relu gave" in why(the("relu is not negative"), lambda x, _: np.where(x > 0, x, x / 8), dtype)
    assert "rank 5" in why(the("softmax has a Jacobian"), lambda x, g: softmax(x, g) + g, dtype)


@pytest.mark.parametrize("words", CLAIMS)
@pytest.mark.parametrize("everywhere", [True, False])
def test_nan_never_passes(words: str, everywhere: bool) -> None:
    def answer(x: Any, g: Any) -> Any:
        y = np.array(EXACT[CLAIMS[words].subject](x, g), float)
        y.reshape(-1)[: y.size if everywhere else 1] = np.nan
        return y

    assert why(CLAIMS[words], answer)


def test_a_jacobian_is_taken_row_by_row_of_one_hot_cotangents() -> None:
    relation = the("softmax has a Jacobian")
    assert relation.cotangents is not None
    np.testing.assert_array_equal(np.concatenate(relation.cotangents), np.eye(5))
    assert math.isclose(sum(abs(x).sum() for x in relation.inputs), 5 * abs(relation.inputs[0]).sum())
