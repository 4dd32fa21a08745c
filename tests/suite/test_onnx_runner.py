"""The verdicts by ONNX's limits are those of onnx's own test runner on onnxruntime, case by case."""

from __future__ import annotations

import unittest
import warnings
from collections import Counter

import onnx.backend.test.runner
import pytest

from actconform.checking.open_runtime import open_runtime
from actconform.plugin.loader import load_plugins
from actconform.settings import Config
from actconform.suite.case import standard_cases
from actconform.suite.suite_run import run_cases

onnxruntime = pytest.importorskip("onnxruntime")

OPERATORS = (
    "Softmax",
    "MatMul*",
    "SequenceMap",
    "Reduce*",
    "StringConcat",
    "LSTM",
    "Bernoulli",
    "OptionalHasElement",
    "QuantizeLinear",
    "IsInf",
)
KINDS = ("node", "simple", "pytorch-operator")

# Where the runner hands onnxruntime's Python binding a number of NumPy's, or bfloat16, this refuses it before any kernel
# computes. Here both arrive as tensors.
BINDING = ("Unable to handle object of type <class 'numpy.", "can't be converted to MLDataType")
NOT_HANDED_OVER = "not handed over"


class Keeper:
    def __init__(self):
        self.records = []

    def add(self, record):
        self.records.append(record)

    def note(self, words):
        raise AssertionError(words)


@pytest.fixture(scope="module")
def cases():
    return [*standard_cases(OPERATORS, ("node",)), *standard_cases((), KINDS[1:])]


@pytest.fixture(scope="module")
def ours(cases):
    keeper = Keeper()
    with open_runtime("ort-cpu", load_plugins(), Config()) as runs:
        run_cases(cases, [runs], keeper)
    return {record.case: record.runtimes["ort-cpu"] for record in keeper.records}


@pytest.fixture(scope="module")
def theirs(cases):
    from onnxruntime.backend.backend import OnnxRuntimeBackend

    class OnCpu(OnnxRuntimeBackend):
        @classmethod
        def supports_device(cls, device):
            return device in ("CPU", "GPU")  # the latter is what it calls the machine with the package for GPUs

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        absent = [name for name in onnxruntime.get_available_providers() if name != "CPUExecutionProvider"]
        patch.setenv("ORT_ONNX_BACKEND_EXCLUDE_PROVIDERS", ",".join(absent))
        load = onnx.backend.test.runner.load_model_tests
        patch.setattr(
            onnx.backend.test.runner, "load_model_tests", lambda kind: load(kind=kind) if kind in KINDS else []
        )
        classes = onnx.backend.test.runner.Runner(OnCpu).test_cases
        names = {f"{case.name}_cpu" for case in cases}
        suite = unittest.TestSuite(
            test_case(name) for test_case in classes.values() for name in dir(test_case) if name in names
        )
        result = Result()
        suite.run(result)
    return result.verdicts


class Result(unittest.TestResult):
    """By case what became of it: passed, failed, or not supported, which an error is and a test that is skipped."""

    def __init__(self):
        super().__init__()
        self.verdicts = {}

    def _note(self, test, verdict):
        self.verdicts[test._testMethodName.removesuffix("_cpu")] = verdict

    def addSuccess(self, test):  # noqa: N802  unittest calls it so
        self._note(test, "passed")

    def addFailure(self, test, err):  # noqa: N802  unittest calls it so
        self._note(test, "failed")

    def addError(self, test, err):  # noqa: N802  unittest calls it so
        self._note(test, NOT_HANDED_OVER if any(words in str(err[1]) for words in BINDING) else "not supported")

    def addSkip(self, test, reason):  # noqa: N802  unittest calls it so
        self._note(test, "not supported")


def test_every_case_has_the_verdict_that_onnx_gives_it(ours, theirs, cases):
    assert len(ours) == len(theirs) == len(cases) > 150
    equal = {name: verdict.standard for name, verdict in ours.items() if theirs[name] != NOT_HANDED_OVER}
    assert equal == {name: verdict for name, verdict in theirs.items() if verdict != NOT_HANDED_OVER}
    assert len(equal) > 0.85 * len(cases)


def test_the_cases_are_of_every_verdict(ours):
    counts = Counter(verdict.standard for verdict in ours.values())
    assert counts["passed"] > 100
    assert counts["not supported"] > 5


def test_an_answer_that_passes_by_onnx_may_be_outside_and_none_is_within_without_being_judged(ours):
    states = Counter(verdict.truth.state for verdict in ours.values())
    assert states["within"] > 80
    assert states["not judged"] > 5  # strings, sequences
    assert all(verdict.truth.reason for verdict in ours.values() if verdict.truth.state == "not judged")
