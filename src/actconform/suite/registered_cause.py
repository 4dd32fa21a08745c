"""Whether a registered cause of a runtime explains what a case of one node has outside its bound."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from msgspec.structs import replace

from actconform.checking.checked_sample import CheckedSample
from actconform.checking.flatten import flatten
from actconform.checking.known_cause import known_cause
from actconform.checking.model_file import ModelFile
from actconform.checking.result import LevelCheck, SampleFacts, TensorCheck
from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actconform.checking.runs import RuntimeRuns
    from actconform.suite.case import SuiteCase
    from actconform.suite.suite_result import FarthestElement, SuiteRecord

BY_FORMULA = "known cause"  # how the words of a cause begin whose formula admits every element
NUMBERS = ("value", "NaN made", "NaN lost", "infinity")  # differences that a formula may explain
MOST_LETTERS = 300


def with_causes(record: SuiteRecord, case: SuiteCase, runtimes: Iterable[RuntimeRuns]) -> SuiteRecord:
    """Return the record with the registered cause of each runtime that is outside by itself, where a formula explains every element."""
    verdicts = dict(record.runtimes)
    for runs in runtimes:
        verdict = verdicts[runs.name]
        worst = verdict.truth.worst
        if verdict.blame == "runtime" and worst is not None and worst.difference in NUMBERS and runs.kernels:
            verdicts[runs.name] = replace(verdict, cause=_cause(runs, case, worst))
    return replace(record, runtimes=verdicts)


def _cause(runs: RuntimeRuns, case: SuiteCase, worst: FarthestElement) -> str:
    inputs = {name: np.asarray(value) for name, value in case.data_sets[worst.data_set].inputs.items()}
    graph = flatten(onnx.load_model_from_string(case.model), inputs)
    if len(graph.nodes) != 1:
        return ""
    node = graph.nodes[0]
    sample = CheckedSample(inputs, SampleFacts(origin=case.name))
    sample.graph = graph
    tensor = TensorCheck(
        node=node.name,
        op_type=node.proto.op_type,
        tensor=worst.output,
        shape=(),
        ratio=worst.ratio,
        error=worst.error,
        bound=worst.bound,
    )
    with ModelFile(graph.model) as file:
        sample.file = file
        cause = known_cause(runs, sample, LevelCheck(name="", sample=worst.data_set, marks="all"), tensor)
    return one_line(cause.words, MOST_LETTERS) if cause and cause.words.startswith(BY_FORMULA) else ""
