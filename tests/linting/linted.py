"""Lints of models in memory, by all rules or by some."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actconform.checking.source import source_of_model
from actconform.linting.linted_model import LintedModel
from actconform.linting.registry import OWN_RULES
from actconform.linting.session import rule_findings
from actconform.linting.unit_statistics import unit_statistics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx

    from actconform.types.lint import LintFinding


def linted_model(model: onnx.ModelProto, samples: Sequence[Mapping[str, Any]] = (), **known: Any) -> LintedModel:
    result = LintedModel(source_of_model(model, "model.onnx"), **known)
    if samples:
        result.units = tuple(unit_statistics(result, samples))
    return result


def findings_of(model: onnx.ModelProto, samples: Sequence[Mapping[str, Any]] = (), **known: Any) -> list[LintFinding]:
    return list(rule_findings(OWN_RULES, linted_model(model, samples, **known)))


def codes_of(model: onnx.ModelProto, samples: Sequence[Mapping[str, Any]] = (), **known: Any) -> list[str]:
    return [finding.code for finding in findings_of(model, samples, **known)]
