"""`actconform.compare`: arrays that something computed against those that are expected, or against the truth of a kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from actconform.accuracy.arrays.compared import SPECIAL, ComparedArray, ComparedArrays, DifferenceKind
from actconform.accuracy.arrays.conversion import array_of
from actconform.accuracy.arrays.of_kernel import compared_with_kernel
from actconform.errors import UsageError, near
from actconform.oracle.rounding import round_to
from actconform.tolerance.ulp import ulp_of
from actconform.types.dtypes import DTYPES, FloatFormat

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from actconform.types import Kernel

    Array = NDArray[Any]
    F64 = NDArray[np.float64]

F64_FORMAT = FloatFormat("f64", 64, 53, -1022, 1023)
FORMATS = {**DTYPES, "f64": F64_FORMAT}
NAMES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16", "float64": "f64"}
ROUNDINGS = "roundings of the largest expected value"


def compare(
    actual: Any,
    expected: Any = None,
    *,
    kernel: str | Kernel | None = None,
    dtype: str | None = None,
    tolerance: float = 0.0,
    inputs: Any = None,
    cotangent: Any = None,
) -> ComparedArrays:
    """Return how `actual` differs from `expected`: two arrays of one shape, or two dicts of them by name; the result is true where it conforms.

    Arrays may be NumPy's or tensors of a framework. The expected ones have the dtype of the actual ones, or are a truth in float64. Two NaN are
    equal, and so are 0 and -0.

    - `tolerance` is the largest error that conforms, in units u max|expected| of each tensor, u being half the gap between 1 and the next number
      of the format: 16 allows 16 roundings of the largest value. 0, the default, wants what is expected, rounded to the format. Where NaN and
      infinities stand must be equal whatever the tolerance.
    - `dtype`, one of "f32", "f16", "bf16", "f64", is the format in which the arrays are judged, by default that of `actual`: it may hold
      bfloat16 in float32.
    - `kernel` is the name of a kernel of the catalog. Its limits are applied as a run does, and its conventions accepted. `inputs` are what it was
      given, an array or a dict ("x", and "slope" of prelu); then `expected` may be left out, for the kernel's own truth. With `cotangent`
      the actual array is its gradient by x, times that.

    Raises UsageError for arguments that do not go together, an unknown kernel or dtype, and what makes no array.
    """
    _expect_consistent(actual, expected, kernel, dtype, tolerance, inputs, cotangent)
    if kernel is not None:
        got = array_of(actual, "actual")
        wanted = None if expected is None else array_of(expected, "expected")
        of_kernel = compared_with_kernel(got, wanted, kernel, dtype or _format_name(got), inputs, cotangent)
        return ComparedArrays(tensors=(of_kernel,))
    if not isinstance(actual, Mapping):
        return ComparedArrays(tensors=(_compared("", actual, expected, dtype, tolerance),))
    names = [*expected, *(name for name in actual if name not in expected)]
    if not names:
        raise UsageError("two empty dicts: there is nothing to compare")
    return ComparedArrays(tensors=tuple(_by_name(str(name), actual, expected, dtype, tolerance) for name in names))


def _expect_consistent(
    actual: Any,
    expected: Any,
    kernel: str | Kernel | None,
    dtype: str | None,
    tolerance: float,
    *of_kernel: Any,
) -> None:
    """Raise UsageError for arguments of `compare` that do not go together."""
    if dtype is not None and dtype not in FORMATS:
        raise UsageError(f"dtype={dtype!r} is no format{near(str(dtype), list(FORMATS))}")
    if not np.isfinite(tolerance) or tolerance < 0:
        raise UsageError(f"tolerance={tolerance!r}: expected a number of 0 or more, in roundings of the largest value")
    if kernel is not None:
        if isinstance(actual, Mapping) or isinstance(expected, Mapping):
            raise UsageError("kernel= is for one array: compare each tensor of a dict by itself")
        if tolerance:
            raise UsageError(f"kernel={_kernel_name(kernel)!r} has limits of its own: leave out tolerance=")
        return
    if any(argument is not None for argument in of_kernel):
        raise UsageError("inputs= and cotangent= are those of a kernel: name it with kernel=")
    if expected is None:
        raise UsageError("compare() needs what is expected, or a kernel with its inputs")
    if isinstance(actual, Mapping) != isinstance(expected, Mapping):
        raise UsageError("one of both is a dict and the other an array: give two arrays, or two dicts by name")


def _by_name(
    name: str, actual: Mapping[str, Any], expected: Mapping[str, Any], dtype: str | None, tolerance: float
) -> ComparedArray:
    if name not in actual:
        problem = f"it is missing{near(name, [str(key) for key in actual if key not in expected])}"
        return ComparedArray(name=name, conforms=False, problem=problem)
    if name not in expected:
        return ComparedArray(name=name, conforms=False, problem="it is not among what is expected")
    return _compared(name, actual[name], expected[name], dtype, tolerance)


def _compared(name: str, actual: Any, expected: Any, dtype: str | None, tolerance: float) -> ComparedArray:
    got, wanted = array_of(actual, name or "actual"), array_of(expected, name or "expected")
    if problem := _problem(got, wanted, dtype):
        return ComparedArray(name=name, conforms=False, problem=problem)
    fmt = FORMATS.get(dtype or _format_name(got))
    if fmt is None:
        return _of_exact(name, got, wanted)
    return _of_floats(name, got, wanted, fmt, tolerance)


def _problem(got: Array, wanted: Array, dtype: str | None) -> str:
    """Return what is wrong before any number is read; "" where nothing is."""
    if got.shape != wanted.shape:
        advice = ""
        if got.ndim == wanted.ndim and sorted(got.shape) == sorted(wanted.shape):
            advice = ": are its axes in another order?"
        elif got.size == wanted.size:
            advice = ": as many elements, reshape one of both"
        return f"its shape is {list(got.shape)}, and {list(wanted.shape)} is expected{advice}"
    truth = wanted.dtype == np.float64 and _format_name(got) in FORMATS
    if dtype is None and got.dtype != wanted.dtype and not truth:
        return f"its dtype is {got.dtype}, and {wanted.dtype} is expected: convert one of both, or name the format with dtype="
    if dtype is not None and not {_format_name(got), _format_name(wanted)} <= FORMATS.keys():
        return f"its dtype is {got.dtype}, beside {wanted.dtype}: dtype= is for floats"
    return ""


def _of_exact(name: str, got: Array, wanted: Array) -> ComparedArray:
    """Compare integers, booleans, strings: equal or not."""
    differ = np.asarray(got != wanted)
    count = int(np.count_nonzero(differ))
    place = _place(int(np.argmax(differ)), got.shape) if count else ()
    numeric = count and got.dtype.kind in "iub"
    return ComparedArray(
        name=name,
        conforms=not count,
        dtype=str(got.dtype),
        shape=got.shape,
        elements=got.size,
        unequal=count,
        differences=(DifferenceKind("unequal", count, place),) if count else (),
        place=place,
        got=float(got[place]) if numeric else 0.0,
        wanted=float(wanted[place]) if numeric else 0.0,
    )


class _Errors(NamedTuple):
    """Element by element, in float64."""

    same: NDArray[np.bool_]
    ulp: F64
    scaled: F64
    kinds: dict[str, NDArray[np.bool_]]
    """Of elements that are not finite in one of both."""


def _of_floats(name: str, actual: Array, expected: Array, fmt: FloatFormat, tolerance: float) -> ComparedArray:
    with np.errstate(all="ignore"):
        got, wanted = actual.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
        errors = _errors(got, wanted, _rounded(wanted, fmt), fmt)
    kinds = dict(errors.kinds)
    kinds["scaled-error"] = ~errors.same & ~np.logical_or.reduce(list(kinds.values())) & ~(errors.scaled <= tolerance)
    differences = tuple(
        DifferenceKind(kind, int(np.count_nonzero(mask)), _place(int(np.argmax(mask)), actual.shape))
        for kind, mask in kinds.items()
        if mask.any()
    )
    special = [int(np.argmax(kinds[kind])) for kind in SPECIAL if kinds[kind].any()]
    worst = [*special, *([int(np.argmax(errors.scaled))] if got.size else [])][:1]
    return ComparedArray(
        name=name,
        conforms=not differences,
        dtype=fmt.name,
        shape=actual.shape,
        elements=got.size,
        unequal=int(got.size - np.count_nonzero(errors.same)),
        differences=differences,
        place=_place(worst[0], actual.shape) if worst else (),
        got=float(got[worst[0]]) if worst else 0.0,
        wanted=float(wanted[worst[0]]) if worst else 0.0,
        ulp=float(errors.ulp.max(initial=0.0)),
        scaled=float(errors.scaled.max(initial=0.0)),
        limit=tolerance,
        unit=ROUNDINGS,
    )


def _errors(got: F64, wanted: F64, rounded: F64, fmt: FloatFormat) -> _Errors:
    """Return the errors against `wanted`, a truth of which `rounded` is the nearest number of the format."""
    same = (got == wanted) | (got == rounded) | (np.isnan(got) & np.isnan(wanted))
    kinds = {
        "nan-made": np.isnan(got) & ~np.isnan(wanted),
        "nan-lost": np.isnan(wanted) & ~np.isnan(got),
        "inf": (np.isinf(got) | np.isinf(rounded)) & ~same & ~np.isnan(got) & ~np.isnan(wanted),
    }
    finite = np.isfinite(got) & np.isfinite(wanted)
    error = np.where(finite, np.abs(got - wanted), 0.0)
    gap = np.spacing(np.abs(np.where(finite, wanted, 1.0))) if fmt is F64_FORMAT else ulp_of(wanted.copy(), fmt)
    largest = float(np.max(np.abs(wanted), where=np.isfinite(wanted), initial=0.0))
    unit = max(largest * fmt.unit_roundoff, fmt.smallest_subnormal)
    return _Errors(same, error / np.where(finite, gap, 1.0), error / unit, kinds)


def _rounded(truth: F64, fmt: FloatFormat) -> F64:
    """Return the nearest numbers of the format, in float64."""
    if fmt is F64_FORMAT:
        return truth
    return round_to(truth, fmt)


def _format_name(array: Array) -> str:
    return NAMES.get(array.dtype.name, array.dtype.name)


def _kernel_name(kernel: str | Kernel) -> str:
    return kernel if isinstance(kernel, str) else kernel.name


def _place(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(flat, shape))
