"""An array against the truth and the limits of a kernel of the catalog, as a run judges it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from actconform.accuracy.arrays.compared import SPECIAL, ComparedArray, DifferenceKind
from actconform.accuracy.arrays.conversion import array_of
from actconform.elements.classify import locate
from actconform.elements.elementwise import Sample, elementwise_errors
from actconform.errors import Unsupported, UsageError, near
from actconform.oracle import truth
from actconform.oracle.rounding import round_to
from actconform.testdata.kernel_vectors import truth_of
from actconform.text import one_line
from actconform.tolerance.limits import row_tolerance, unary_tolerance
from actconform.tolerance.row_bounds import row_bound
from actconform.types import Kernel
from actconform.types.dtypes import DTYPES
from actconform.verdict.causes.conventions import accepted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from actconform.elements.classify import Located
    from actconform.types import Aspect
    from actconform.types.dtypes import FloatFormat

    Array = NDArray[Any]
    F64 = NDArray[np.float64]


def compared_with_kernel(
    actual: Array, expected: Array | None, kernel: str | Kernel, dtype: str, inputs: Any, cotangent: Any
) -> ComparedArray:
    """Return how an output of a kernel, or with `cotangent` its gradient by x, compares under the kernel's limits.

    `expected` is its truth, by default that of the formula in float64. Raises UsageError for an unknown kernel, a format without limits, and
    inputs that are missing or do not fit.
    """
    kernel = _kernel(kernel)
    if dtype not in DTYPES:
        raise UsageError(
            f"kernels have limits in {', '.join(DTYPES)}, and this array is of {dtype}: name the format with dtype="
        )
    fmt = DTYPES[dtype]
    read = _inputs(inputs, kernel)
    ct = None if cotangent is None else array_of(cotangent, "cotangent").astype(np.float64)
    name = "y" if ct is None else "d_x"
    try:
        outputs = {name: expected.astype(np.float64)} if expected is not None else truth(kernel, read, _cotangents(ct))
    except (Unsupported, ValueError) as error:
        raise UsageError(
            f"kernel {kernel.name}: {one_line(str(error))}; are the inputs of the shapes that it takes?"
        ) from error
    wanted = np.asarray(outputs[name], np.float64)
    if actual.shape != wanted.shape:
        problem = f"its shape is {list(actual.shape)}, and {list(wanted.shape)} is expected"
        return ComparedArray(name="", conforms=False, problem=problem)
    return _judged(actual, wanted, read, ct, kernel, fmt)


def _judged(
    actual: Array, wanted: F64, read: Mapping[str, F64], ct: F64 | None, kernel: Kernel, fmt: FloatFormat
) -> ComparedArray:
    aspect: Aspect = "value" if ct is None else "gradient"
    if kernel.form == "unary":
        at_zero = float(truth_of(kernel, np.zeros(1), gradient=ct is not None)[0])
        tolerance, bound, x = unary_tolerance(kernel, aspect, fmt, at_zero), None, read["x"]
    else:
        name = "y" if ct is None else "d_x"
        limits = row_bound(kernel, fmt, read, ct, {name: wanted})
        tolerance, bound, x = row_tolerance(kernel, aspect, fmt), limits[name].ravel(), wanted
    if x.shape != wanted.shape:
        raise UsageError(
            f"inputs= has the shape {list(x.shape)}, and the output {list(wanted.shape)}: they must be equal"
        )
    sample = Sample(
        got=actual.ravel(),
        truth=wanted.ravel(),
        x=x.ravel(),
        cotangent=ct.ravel() if ct is not None and kernel.form == "unary" else None,
        bound=bound,
    )
    errors = elementwise_errors(sample, tolerance)
    located = locate(sample, tolerance, errors, "", "")
    findings = [(each, bool(accepted(kernel, aspect, fmt, sample.part(each.elements)).all())) for each in located]
    worst = _worst([each for each, free in findings if not free]) or _worst(located)
    place = np.unravel_index(worst if worst is not None else _furthest(sample, fmt), actual.shape)
    at = tuple(int(axis) for axis in place) if actual.size else ()
    sizes = [each.finding.worst for each in located if each.finding.worst is not None]
    with np.errstate(all="ignore"):
        got = actual.astype(np.float64)
        same = (got == round_to(wanted, fmt)) | (np.isnan(got) & np.isnan(wanted))
    return ComparedArray(
        name=kernel.name,
        conforms=all(free for _, free in findings),
        dtype=fmt.name,
        shape=actual.shape,
        elements=actual.size,
        unequal=int(actual.size - np.count_nonzero(same)),
        differences=tuple(_difference(each, free, actual.shape) for each, free in findings),
        place=at,
        got=float(got[at]) if actual.size else 0.0,
        wanted=float(wanted[at]) if actual.size else 0.0,
        ulp=max([errors.max_ulp, *(each.ulp for each in sizes if np.isfinite(each.ulp))]),
        scaled=max([errors.max_scaled, *(each.scaled for each in sizes if np.isfinite(each.scaled))]),
        limit=tolerance.limit,
        unit="units of the kernel's scale" if tolerance.scale else "ULP" if tolerance.exact else "of its bound",
    )


def _difference(located: Located, free: bool, shape: tuple[int, ...]) -> DifferenceKind:
    finding = located.finding
    flat = finding.worst.index if finding.worst is not None else int(located.elements[0])
    return DifferenceKind(
        str(finding.class_), finding.count, tuple(int(axis) for axis in np.unravel_index(flat, shape)), free
    )


def _worst(located: list[Located]) -> int | None:
    """Return the flat index of the worst element of findings: NaN and infinities first, then the largest in the unit of the limit."""
    worst = [
        (
            str(each.finding.class_) in SPECIAL,
            each.finding.worst.scaled,
            each.finding.worst.ulp,
            each.finding.worst.index,
        )
        for each in located
        if each.finding.worst is not None
    ]
    return max(worst, default=(False, 0.0, 0.0, None))[-1]


def _furthest(sample: Sample, fmt: FloatFormat) -> int:
    """Return the flat index of the largest finite error over the size of the truth."""
    if not sample.truth.size:
        return 0
    with np.errstate(all="ignore"):
        error = np.abs(sample.got.astype(np.float64) - sample.truth) / np.maximum(
            np.abs(sample.truth), fmt.smallest_normal
        )
    return int(np.argmax(np.where(np.isfinite(error), error, -1.0)))


def _kernel(kernel: str | Kernel) -> Kernel:
    if isinstance(kernel, Kernel):
        return kernel
    from actconform.plugin.loader import load_plugins

    kernels = load_plugins(judging=False).kernels
    if kernel not in kernels:
        raise UsageError(
            f"there is no kernel {one_line(str(kernel), 80)!r}{near(str(kernel), list(kernels))}; `actconform list` has all"
        )
    return kernels[kernel]


def _inputs(inputs: Any, kernel: Kernel) -> dict[str, F64]:
    """Return the inputs of a kernel by name, as the numbers they are."""
    if inputs is None:
        raise UsageError(f"kernel={kernel.name!r}: its limits depend on what it read: give inputs=")
    named = dict(inputs) if isinstance(inputs, Mapping) else {kernel.inputs[0]: inputs}
    if missing := [name for name in kernel.inputs if name not in named]:
        raise UsageError(
            f"kernel={kernel.name!r} takes {', '.join(kernel.inputs)}, and inputs= lacks {', '.join(missing)}: give a dict"
        )
    return {name: array_of(named[name], f"input {name}").astype(np.float64) for name in kernel.inputs}


def _cotangents(ct: F64 | None) -> dict[str, F64] | None:
    return None if ct is None else {"y": ct}
