"""`actconform.measure`: one function, called in this process, against the truth of a kernel, in one line of Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from actconform.accuracy.function.arrays import array_kind
from actconform.accuracy.function.calls import Caller, function_name
from actconform.accuracy.function.measurement import AspectMeasurement, FunctionMeasurement
from actconform.accuracy.function.standard import standard
from actconform.comparison.comparator import comparison_of, joined, structure
from actconform.comparison.metamorphic import RelationChecks
from actconform.comparison.side_effects import behaviour
from actconform.errors import UsageError
from actconform.types import Blame, FindingClass
from actconform.types.dtypes import DTYPES
from actconform.verdict.causes.conventions import accepted
from actconform.verdict.severity import severity_of, severity_order

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform.accuracy.function.arrays import Give, Take
    from actconform.accuracy.function.standard import Standard
    from actconform.comparison.comparator import Comparison
    from actconform.types import Aspect, Finding, Kernel
    from actconform.types.dtypes import FloatFormat

CONVENTION = "convention"
SUBNORMAL = np.full(64, 1, np.uint32)  # patterns of the smallest float32, enough for a vector loop


def measure(
    fn: Callable[..., Any],
    kernel: str | Kernel | None = None,
    dtype: str = "f32",
    gradient: Callable[..., Any] | None = None,
    truth: Callable[[Any], Any] | None = None,
    *,
    truth_gradient: Callable[[Any], Any] | None = None,
    arrays: str | tuple[Give, Take] | None = None,
) -> FunctionMeasurement:
    """Return how accurate `fn` is as a kernel of the catalog, at every number of a 16-bit format or at the stored points of f32.

    `fn(x)` takes an array of `dtype` ("f32", "f16", or "bf16": ml_dtypes.bfloat16) and returns one of that dtype: (n) for unary
    kernels, (b, n) or (b, n, m) for kernels of rows, further inputs such as the slope of prelu after x. It computes with the
    kernel's own parameters, which the result lists. `gradient(x, ct)` is its vector-Jacobian product: it takes the same inputs
    and the cotangent of the output, and returns the gradient of x, or a tuple with those of all inputs.

    `arrays` says what both take: "numpy", "torch", "torch:DEVICE", "jax", "tensorflow", or two functions that convert to and from
    NumPy; by default what the package takes that fn or gradient comes from (torch.nn.functional.gelu takes tensors), else NumPy.

    `truth` defines a function of one's own in Arb: a function of a `flint.arb` that returns one, such as `lambda x: x.sin() / x`.
    Its values are correctly rounded and proven; `kernel` is then its name, or a `Kernel` with limits, kinks and conventions.
    `truth_gradient` is its derivative, by default that of Arb's power series. Where Arb decides no number (outside of the domain,
    at limits that the definition cannot take) nothing is judged, and the result says where; nor is the sign of a zero.
    Needs python-flint.

    NaN, infinities, signed zeros, subnormal numbers, writes to inputs and outputs of another shape, dtype or value the second
    time are judged as in a run. Nothing of the process is changed but by `fn` itself; results do not depend on threads.

    Raises UsageError where the arguments or what `fn` returned cannot be used, with what to do, and where the processor is set to
    take subnormal numbers for 0 in this thread. What `fn` raises passes through,
    with a note that says at which inputs.
    """
    fmt = _format(dtype)
    if not callable(fn) or not (gradient is None or callable(gradient)):
        raise UsageError("fn and gradient are functions of arrays: measure(fn, 'gelu-erf', 'bf16', gradient=vjp)")
    held_against = standard(kernel, truth, truth_gradient)
    subject = held_against.kernel
    if gradient is not None and not subject.differentiable:
        raise UsageError(f"{subject.name} has no gradient, by declaration: leave gradient= out")
    _require_subnormals("before fn was called")
    caller = Caller(fn, gradient, subject, fmt, array_kind(arrays, (fn, gradient)))
    return FunctionMeasurement(
        function=function_name(fn),
        kernel=subject.name,
        definition=subject.definition,
        parameters=dict(subject.parameters),
        dtype=fmt.name,
        value=_measured("value", held_against, fmt, caller),
        gradient=None if gradient is None else _measured("gradient", held_against, fmt, caller),
    )


def _format(dtype: str) -> FloatFormat:
    if dtype not in DTYPES:
        raise UsageError(f"dtype {dtype!r} cannot be measured; wanted one of {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _require_subnormals(since: str) -> None:
    """Raise UsageError where this thread takes subnormal numbers for 0: then inputs, outputs and truth could not be told apart."""
    if not SUBNORMAL.view(np.float32).astype(np.float64).all():
        raise UsageError(
            f"this thread takes subnormal numbers for 0, {since}, so what fn does with them cannot be seen: "
            "switch that off (torch.set_flush_denormal(False)), or measure in a process without the library that does it"
        )


def _measured(aspect: Aspect, held_against: Standard, fmt: FloatFormat, caller: Caller) -> AspectMeasurement:
    """Take one aspect down the line of a run: vectors, calls, comparison, conventions, severity."""
    kernel = held_against.kernel
    questions = held_against.questions(aspect, fmt)
    test_vectors = questions.test_vectors
    relation_checks = RelationChecks(kernel.name, aspect, test_vectors)
    calls = [(vector.regime, vector.inputs, vector.cotangents) for vector in test_vectors.vectors]
    outcome = caller.all([*calls, *relation_checks.calls()])
    _require_subnormals("since fn was called")
    outputs, of_relations = outcome.outputs[: len(calls)], outcome.outputs[len(calls) :]
    samples = {place: questions.judged(sample) for place, sample in joined(test_vectors, outputs).items()}
    samples = {place: sample for place, sample in samples.items() if sample.x.size}
    compared = comparison_of(samples, test_vectors.tolerance)
    findings = structure(test_vectors, outputs) + compared.findings
    findings += relation_checks.violations(of_relations) + behaviour(test_vectors, outcome, "", {})
    return AspectMeasurement(
        aspect=aspect,
        findings=tuple(_graded(findings, kernel, aspect, compared, fmt)),
        measurements=tuple(compared.measurements),
        not_judged=questions.words,
        samples=samples,
        tolerance=test_vectors.tolerance,
    )


def _graded(
    findings: list[Finding], kernel: Kernel, aspect: Aspect, compared: Comparison, fmt: FloatFormat
) -> list[Finding]:
    """Return the findings with what is a convention marked so, and with their severity, gravest first."""
    marked = [
        msgspec.structs.replace(finding, deviation=CONVENTION, blame=Blame.CONVENTION)
        if _is_convention(finding, kernel, aspect, compared, fmt)
        else finding
        for finding in findings
    ]
    graded = [
        msgspec.structs.replace(finding, severity=str(severity_of(finding, fmt.name, compared.measurements)))
        for finding in marked
    ]
    return sorted(graded, key=severity_order)


def _is_convention(finding: Finding, kernel: Kernel, aspect: Aspect, compared: Comparison, fmt: FloatFormat) -> bool:
    """Tell whether the kernel's conventions allow every element of a finding that is wrong."""
    elements = compared.elements.get(finding.place)
    if elements is None:
        return False
    sample = compared.samples[finding.regime, finding.tensor].part(elements)
    allowed = accepted(kernel, aspect, fmt, sample)
    if (
        finding.class_ == FindingClass.POSITION_DEPENDENT and allowed.any()
    ):  # of the answers to one input some are right
        place = (finding.class_, finding.regime, finding.tensor)
        deviant = [
            counted
            for (class_, regime, tensor, _), counted in compared.elements.items()
            if (regime, tensor) == place[1:] and class_ != place[0]
        ]
        allowed |= ~np.isin(elements, np.concatenate([np.empty(0, np.int64), *deviant]))
    return bool(allowed.all())
