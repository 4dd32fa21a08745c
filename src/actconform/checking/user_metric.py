"""The user's own metric of a model's outputs: called sample by sample for two columns, and averaged."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from actconform.checking.agreement_result import MetricAgreement
from actconform.checking.output_tally import Mean
from actconform.checking.user_function import raised, user_object
from actconform.errors import UsageError
from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from actconform.checking.dataset import DataSample

    Arrays = Mapping[str, NDArray[Any]]

BOTH = {"expected", "actual"}


class UserMetric:
    """A function of the user's that gives a number for a sample.

    `metric(outputs, sample)` is called for each column: `outputs` are its outputs by name, `sample` the model's inputs and the labels of the data
    set by name. A function whose arguments are called `expected` and `actual` gets the outputs of both columns and is called once.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self.name = name
        self._function = function
        self.compares = set(_arguments(function)) >= BOTH

    def expect(self, outputs: Arrays, sample: DataSample, column: str) -> float:
        """Return its number for one column. Raises UsageError, naming the sample, for what the function raises and for no number."""
        return self._call(sample.index, column, dict(outputs), {**sample.labels, **sample.inputs})

    def compare_both(self, expected: Arrays, actual: Arrays, sample: DataSample) -> float:
        """Return its number for two columns together. Raises UsageError likewise."""
        return self._call(sample.index, "both columns", expected=dict(expected), actual=dict(actual))

    def _call(self, index: int, column: str, *arguments: Any, **named: Any) -> float:
        where = f"--metric {one_line(self.name)}, sample {index}, {one_line(column)}"
        try:
            value = self._function(*arguments, **named)
            number = np.asarray(value, np.float64) if not isinstance(value, float | int) else value
            if value is None:
                raise UsageError(f"{where}: gave None; expected a function that gives a number: does it return?")
            if np.shape(number):
                raise UsageError(
                    f"{where}: gave an array of shape {list(np.shape(number))}; expected one number: take a mean or a sum"
                )
            return float(number)
        except UsageError:
            raise
        except (Exception, SystemExit) as error:  # whatever the user's function raises
            if (
                error.__traceback__ is not None and error.__traceback__.tb_next is None
            ):  # by the call, or by what it gave
                kind = one_line(str(error), 200)
                raise UsageError(
                    f"{where}: {kind}; expected a function of (outputs, sample) or (expected, actual) that gives a number"
                ) from error
            raise UsageError(f"{where}: {raised(error)}") from error


def user_metric(metric: Any) -> UserMetric:
    """Return the metric "module:function", or a function in memory. Raises UsageError where there is no such function."""
    function = user_object(metric, "--metric") if isinstance(metric, str) else metric
    name = metric if isinstance(metric, str) else getattr(metric, "__name__", type(metric).__name__)
    if not callable(function):
        raise UsageError(f"--metric {one_line(name)}: is of type {type(function).__name__}; expected a function")
    return UserMetric(function, name)


def _arguments(function: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # some that are written in C
        return []


class MetricTally:
    """What a metric has given so far."""

    def __init__(self, metric: UserMetric) -> None:
        self._metric = metric
        self._expected, self._actual = Mean(), Mean()
        self._undefined = self._differing = 0
        self._largest: tuple[float, int] = (0.0, -1)

    def add(self, sample: DataSample, expected: Arrays, actual: Arrays, columns: tuple[str, str]) -> None:
        """Call the metric for one sample. Raises UsageError as `UserMetric` does."""
        if self._metric.compares:
            value = self._metric.compare_both(expected, actual, sample)
            if math.isnan(value):
                self._undefined += 1
            else:
                self._actual.add_sum(value, 1)
            return
        right = self._metric.expect(expected, sample, columns[0])
        value = self._metric.expect(actual, sample, columns[1])
        if math.isnan(right) and math.isnan(value):
            self._undefined += 1
            return
        undefined = math.isnan(right) or math.isnan(value)
        difference = math.inf if undefined else 0.0 if value == right else abs(value - right)
        self._differing += difference > 0
        if difference > self._largest[0]:
            self._largest = (difference, sample.index)
        if undefined:
            self._undefined += 1
            return
        self._expected.add_sum(right, 1)
        self._actual.add_sum(value, 1)

    def result(self) -> MetricAgreement:
        """Return the means over all samples."""
        return MetricAgreement(
            name=self._metric.name,
            compares=self._metric.compares,
            samples=self._actual.count,
            undefined=self._undefined,
            expected=self._expected.value,
            actual=self._actual.value,
            differing=self._differing,
            largest_difference=self._largest[0],
            largest_difference_sample=self._largest[1],
        )
