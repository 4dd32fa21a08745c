"""A runtime's answers under the limits of ONNX's own test runner, by the function with which that compares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actconform.suite.case import SuiteCase
    from actconform.suite.suite_result import StandardVerdict
    from actconform.workers.graph_session import OnnxValue

MOST_WORDS = 400


def standard_verdict(case: SuiteCase, answers: Sequence[Mapping[str, OnnxValue]]) -> tuple[StandardVerdict, str]:
    """Return whether the answers, outputs by name for each data set, are within the case's own limits, and what the runner says if not.

    "not supported" where its comparison itself raises, which it counts as an error and not as a failure.
    """
    from onnx.backend.test.runner import Runner

    for data_set, outputs in zip(case.data_sets, answers, strict=True):
        if data_set.expected is None:
            return "not supported", "the case ships no outputs"
        listed = [outputs[name] for name in case.outputs if name in outputs]
        try:
            Runner.assert_similar_outputs(data_set.expected, listed, case.rtol, case.atol)
        except AssertionError as error:
            return "failed", one_line(str(error), MOST_WORDS)
        except Exception as error:  # noqa: BLE001  whatever it raises is an error of the runner's
            return "not supported", one_line(f"onnx's runner cannot compare it: {error}", MOST_WORDS)
    return "passed", ""
