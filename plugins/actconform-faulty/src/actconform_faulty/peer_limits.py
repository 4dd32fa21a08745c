"""How others compare two sets of outputs, as their documentation and sources say, each with its own defaults.

`holds(got, reference)` of each says whether its comparison passes: both are outputs by name, the reference in the dtype that
was asked for. numpy and torch compare what is called the same, and a name that is missing fails, as a test that looks it up
does; further outputs they never see. ONNX's runner and Polygraphy pair what is called otherwise by position.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import ml_dtypes
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from actconform.types import Bundle

ONNX_RTOL, ONNX_ATOL = 1e-3, 1e-7
ONNX_BFLOAT16_RTOL = 2.0**-6
POLYGRAPHY_LIMIT = 1e-5
POLYGRAPHY_EPSILON = 2.220446049250313e-16
FAILURES = (AssertionError, KeyError, TypeError, ValueError, RuntimeError)


class Peer(NamedTuple):
    """A comparison and what it is called."""

    name: str
    holds: Callable[[Bundle, Bundle], bool]


def numpy_holds(got: Bundle, reference: Bundle) -> bool:
    """numpy.testing.assert_allclose: |got - reference| <= 1e-7 |reference|, NaN equals NaN; dtypes may differ."""

    def check() -> None:
        for name, wanted in reference.items():
            np.testing.assert_allclose(_plain(got[name]), _plain(wanted))

    return _passes(check)


def torch_holds(got: Bundle, reference: Bundle) -> bool:
    """torch.testing.assert_close: limits by dtype (float32 1.3e-6 and 1e-5), NaN never equals NaN, dtypes must be equal."""
    import torch

    def tensor(array: NDArray[Any]) -> torch.Tensor:
        if array.dtype == ml_dtypes.bfloat16:
            return torch.tensor(array.view(np.int16)).view(torch.bfloat16)
        return torch.tensor(array)

    def check() -> None:
        for name, wanted in reference.items():
            torch.testing.assert_close(tensor(got[name]), tensor(wanted))

    return _passes(check)


def onnx_holds(got: Bundle, reference: Bundle, rtol: float = ONNX_RTOL, atol: float = ONNX_ATOL) -> bool:
    """As `onnx.backend.test.runner`: as many outputs, of one shape and dtype, by assert_allclose at 1e-3 and 1e-7.

    In bfloat16 the relative limit is at least 2**-6.
    """

    def check() -> None:
        np.testing.assert_equal(len(got), len(reference))
        by_name = got.keys() == reference.keys()
        for position, (name, wanted) in enumerate(reference.items()):
            output = got[name] if by_name else list(got.values())[position]
            np.testing.assert_array_equal(output.shape, wanted.shape)
            np.testing.assert_equal(output.dtype, wanted.dtype)
            limit = max(rtol, ONNX_BFLOAT16_RTOL) if output.dtype == ml_dtypes.bfloat16 else rtol
            np.testing.assert_allclose(_plain(output), _plain(wanted), rtol=limit, atol=atol)

    return _passes(check)


def polygraphy_holds(got: Bundle, reference: Bundle) -> bool:
    """As Polygraphy 0.53.6 does with no options, `Comparator.compare_accuracy` by its SimpleCompareFunc.

    An element fails only if its absolute and its relative error both exceed 1e-5 or are NaN: so NaN in both fails, and so
    does inf in both; where the reference is 0 the relative error is taken of 2.2e-16. An output that finds no partner is left
    out, but one pair there must be. Written anew after its source, because it is no dependency; bfloat16, which it does not
    take from numpy, is compared as float32.
    """
    pairs = _polygraphy_pairs(list(got), list(reference))
    return bool(pairs) and all(
        _polygraphy_equal(got[output_name], reference[reference_name]) for output_name, reference_name in pairs
    )


def _polygraphy_pairs(got: list[str], reference: list[str]) -> list[tuple[str, str]]:
    """Pair equal names, then names that hold one another, then by position unless that partner has an equal of its own."""
    pairs = []
    for position, name in enumerate(got):
        alike = (
            reference_name
            for reference_name in reference
            if name.lower() in reference_name.lower() or reference_name.lower() in name.lower()
        )
        at = reference[position] if position < len(reference) else None
        match = name if name in reference else next(alike, at)
        if match is not None and (match == name or match not in got):
            pairs.append((name, match))
    return pairs


def _polygraphy_equal(got: NDArray[Any], reference: NDArray[Any]) -> bool:
    if got.shape != reference.shape:
        return False
    output_name, reference_name = _wide(got), _wide(reference)
    with np.errstate(all="ignore"):
        absolute = np.abs(output_name - reference_name)
        relative = absolute / np.abs(
            np.where(reference_name == 0, np.asarray(POLYGRAPHY_EPSILON, reference_name.dtype), reference_name)
        )
    return not bool((_exceeds(absolute) & _exceeds(relative)).any())


def _exceeds(error: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray((error > POLYGRAPHY_LIMIT) | np.isnan(error))


def _wide(array: NDArray[Any]) -> NDArray[Any]:
    """Return float16 and bfloat16 as float32, integers as float64."""
    if array.dtype.kind in "iub":
        return array.astype(np.float64)
    return array.astype(np.float32) if array.dtype.itemsize < 4 else array


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    """Return bfloat16 as float32, without change of value: numpy's comparison does not take it."""
    return array.astype(np.float32) if array.dtype == ml_dtypes.bfloat16 else array


def _passes(check: Callable[[], None]) -> bool:
    try:
        with np.errstate(all="ignore"):
            check()
    except FAILURES:
        return False
    return True


ONNX = Peer("ONNX's limits", onnx_holds)
PEERS = (
    ONNX,
    Peer("assert_allclose", numpy_holds),
    Peer("assert_close", torch_holds),
    Peer("Polygraphy", polygraphy_holds),
)
