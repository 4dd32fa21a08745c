"""Repairs of a model that keep its meaning, or mend what is plainly a mistake; checked, and shown by its outputs before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx

from actconform.checking.flatten import flatten
from actconform.checking.truth import CorrectRounding, evaluated
from actconform.errors import ExternalDataError, Unsupported, UsageError
from actconform.linting.registry import OWN_RULES
from actconform.onnx.external import read_external_data
from actconform.onnx.inference import expect_consistent
from actconform.onnx.strip_weights import without_weights
from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from actconform.linting.linted_model import LintedModel
    from actconform.plugin.lint_rule import LintRule
    from actconform.types.lint import LintFinding, LintFix


class FixedModel(NamedTuple):
    """A repaired copy of a model."""

    model: onnx.ModelProto
    fixes: tuple[LintFix, ...]


def fixed_model(
    model: LintedModel,
    findings: Sequence[LintFinding],
    rules: Sequence[LintRule] = OWN_RULES,
    original: onnx.ModelProto | None = None,
) -> FixedModel:
    """Return a copy of a model with what its findings' rules can repair; what is ignored is left as it is.

    `original` is the model as its file has it, whose outputs of other types than tensors of numbers a lint leaves out.

    Raises UsageError where the repaired model is not valid by onnx's checker, though the model was.
    """
    codes = {finding.code for finding in findings}
    copy = onnx.ModelProto()
    copy.CopyFrom(model.source.model if original is None else original)
    fixes: list[LintFix] = []
    for rule in rules:
        if rule.fix is not None and rule.code in codes:
            fixes += rule.fix(copy, model)
    if fixes and (fault := _fault(copy)) and not _fault(model.source.model):
        raise UsageError(f"--fix: the repaired model would not be valid, nothing was written: {fault}")
    return FixedModel(copy, tuple(fixes))


def _fault(model: onnx.ModelProto) -> str:
    try:
        expect_consistent(without_weights(model), check_type=False)
    except Exception as error:  # noqa: BLE001  whatever the checker raises is its verdict
        return one_line(str(error), 400)
    return ""


class OutputChange(NamedTuple):
    """How an output moved by repairs."""

    output: str
    words: str


def output_changes(model: LintedModel, fixed: FixedModel, sample: Mapping[str, NDArray[Any]]) -> list[OutputChange]:
    """Return for each output how it is before and after, for one sample, each node of both graphs rounded once to its format."""
    before = _outputs(model.source.model, sample)
    complete = onnx.ModelProto()
    complete.CopyFrom(fixed.model)
    try:
        read_external_data(complete, model.source.path.resolve().parent)
    except (ExternalDataError, OSError) as error:
        return [OutputChange("outputs", f"cannot be compared: {one_line(str(error))}")]
    after = _outputs(complete, sample)
    if isinstance(before, str) or isinstance(after, str):
        reason = before if isinstance(before, str) else after
        return [OutputChange("outputs", f"cannot be compared: {reason}")]
    return [
        OutputChange(one_line(name, 80), _difference(before[name], after[name])) for name in before if name in after
    ]


def _outputs(model: onnx.ModelProto, sample: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]] | str:
    try:
        return evaluated(flatten(model, sample), sample, CorrectRounding())
    except (Unsupported, ValueError) as error:
        return one_line(str(error), 300)


def _difference(before: NDArray[Any], after: NDArray[Any]) -> str:
    if before.shape != after.shape:
        return f"of shape {list(before.shape)} before, {list(after.shape)} after"
    if np.array_equal(before, after, equal_nan=before.dtype.kind == "f"):
        return "the same before and after"
    moved = np.abs(before.astype(np.float64) - after.astype(np.float64))
    return f"moved by up to {np.nanmax(moved):.3g}, from {_range(before)} to {_range(after)}"


def _range(array: NDArray[Any]) -> str:
    return f"[{np.nanmin(array):.4g}, {np.nanmax(array):.4g}]"
