"""What a function is held against: a kernel with its goldens, or a definition of the user's own, whose truth is proven here and now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from actconform.catalog.kernels import KERNELS
from actconform.errors import UsageError, near
from actconform.testdata.golden.store import golden_dir, load, read_manifest
from actconform.testdata.kernel_vectors import generate, unary_points, unary_vectors
from actconform.testdata.regimes import unary_regimes
from actconform.text import number_of, one_line
from actconform.tolerance.limits import unary_tolerance
from actconform.tolerance.ulp import to_hex
from actconform.types import Kernel

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from numpy.typing import NDArray

    from actconform.elements.elementwise import Sample
    from actconform.testdata.golden.store import Golden
    from actconform.testdata.kernel_vectors import TestVectors
    from actconform.types import Aspect
    from actconform.types.dtypes import FloatFormat

    F64 = NDArray[np.float64]

    class Standard(Protocol):
        """What a function is held against."""

        @property
        def kernel(self) -> Kernel:
            """The kernel, or what is known of a function that has only its definition."""

        def questions(self, aspect: Aspect, fmt: FloatFormat) -> Questions:
            """Return the test vectors of an aspect in a format, and where there is no truth."""


class Questions(NamedTuple):
    """Test vectors, and the inputs at which nothing is judged, with the reason in words."""

    test_vectors: TestVectors
    unjudged: F64
    words: str

    def judged(self, sample: Sample) -> Sample:
        """Return the elements of a sample that have a truth."""
        if not self.unjudged.size:
            return sample
        outside = np.isin(sample.x, self.unjudged) | (np.isnan(sample.x) & np.isnan(self.unjudged).any())
        return sample.part(np.flatnonzero(~outside))


def standard(
    kernel: str | Kernel | None, truth: Callable[[Any], Any] | None, slope: Callable[[Any], Any] | None
) -> Standard:
    """Return the standard of a kernel by name, or of a definition `truth` with its derivative `slope`.

    Raises UsageError for an unknown kernel, with the nearest names, and where both or neither is given.
    """
    if truth is None:
        if slope is not None:
            raise UsageError("truth_gradient= is the derivative of truth=, which is not given")
        return _of_catalog(kernel)
    if not callable(truth) or not (slope is None or callable(slope)):
        raise UsageError("truth= and truth_gradient= are functions of a flint.arb, such as lambda x: x.tanh()")
    if isinstance(kernel, str) and kernel in KERNELS:
        raise UsageError(
            f"{kernel!r} has a proven truth of its own: leave truth= out, or give your function another name"
        )
    if not isinstance(kernel, Kernel):
        kernel = Kernel(name=one_line(kernel or "own function", 80), definition="truth=", source="")
    if kernel.form != "unary":
        raise UsageError(f"truth= is of functions of one number, and the kernel {kernel.name!r} works on rows")
    return OwnDefinition(kernel, truth, slope)


def _of_catalog(kernel: str | Kernel | None) -> KernelOfCatalog:
    if kernel is None:
        raise UsageError(
            'measure() needs a kernel, as in measure(fn, "gelu-erf"), or the definition of your function as truth='
        )
    name = kernel.name if isinstance(kernel, Kernel) else kernel
    if name in KERNELS:
        folder = golden_dir()
        chosen, golden = KERNELS[name], load(folder, read_manifest(folder), name)
    else:
        chosen, golden = _of_plugin(str(name))
    if isinstance(kernel, Kernel) and kernel != chosen:
        raise UsageError(
            f"this kernel {name!r} is another than the catalog's, whose truth is stored: give its truth as truth="
        )
    return KernelOfCatalog(chosen, golden)


def _of_plugin(name: str) -> tuple[Kernel, Golden]:
    from actconform.plugin.loader import load_plugins
    from actconform.testdata.golden.store import collected

    catalog = load_plugins(judging=False)
    if name not in catalog.kernels:
        raise UsageError(
            f"there is no kernel {one_line(name, 80)!r}{near(name, list(catalog.kernels))}; `actconform list` has all"
        )
    manifest = collected(golden_dir(), catalog.goldens)
    return catalog.kernels[name], load(golden_dir(), manifest, name)


class KernelOfCatalog(NamedTuple):
    """A kernel: the stored points in f32, every pattern in 16 bits, the drawn rows of a row kernel."""

    kernel: Kernel
    golden: Golden

    def questions(self, aspect: Aspect, fmt: FloatFormat) -> Questions:
        return Questions(generate(self.kernel, aspect, fmt.name, self.golden), np.empty(0), "")


class OwnDefinition(NamedTuple):
    """A definition of the user's own; in f32 it is asked at the points that a kernel of its name would be."""

    kernel: Kernel
    truth: Callable[[Any], Any]
    slope: Callable[[Any], Any] | None

    def questions(self, aspect: Aspect, fmt: FloatFormat) -> Questions:
        from actconform.oracle.arb.own_function import derivative_by_series, own_values

        definition = self.truth if aspect == "value" else self.slope or derivative_by_series(self.truth)
        points = unary_points(unary_regimes(self.kernel), fmt)
        distinct, places = np.unique(points.x.view(np.uint64), return_inverse=True)
        x = distinct.view(np.float64)
        values, decided = own_values(definition, x)
        limits = self.kernel.at_infinity if aspect == "value" else self.kernel.gradient_at_infinity
        for point, limit in zip((-np.inf, np.inf), limits, strict=True):  # what the user states needs no proof
            at = (x == point) & ~np.isnan(limit)
            values[at], decided[at] = limit, True
        zero = values[x == 0.0]
        at_zero = float(zero[0]) if zero.size else np.nan
        tolerance = unary_tolerance(self.kernel, aspect, fmt, at_zero)
        tolerance = msgspec.structs.replace(tolerance, zero_sign=False)  # Arb has one zero
        test_vectors = unary_vectors(self.kernel, tolerance, aspect, points, values[places])
        return Questions(test_vectors, x[~decided], _undecided(x, decided, fmt))


def _undecided(x: F64, decided: NDArray[np.bool_], fmt: FloatFormat) -> str:
    """Return in words at which inputs there is no truth: NaN, the infinities, how many numbers and between which."""
    left = x[~decided]
    numbers = left[np.isfinite(left)]
    order = np.lexsort(
        (~np.signbit(numbers), numbers)
    )  # -0 before 0: by value alone processors sort them in either order
    numbers = numbers[order]
    parts = ["NaN"] if np.isnan(left).any() else []
    parts += [f"{point:g}" for point in (-np.inf, np.inf) if point in left]
    if numbers.size:
        ends = " to ".join(f"{end:.6g} ({to_hex(float(end), fmt)})" for end in dict.fromkeys(numbers[[0, -1]].tolist()))
        parts.append(f"{number_of(numbers.size, 'number')}, {ends}")
    return f"{'; '.join(parts)}: truth= decides nothing there" if parts else ""
