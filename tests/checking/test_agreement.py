"""Columns over a data set: who agrees, which samples do not, what fails, and the user's metric."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

from actconform.checking.agreement import (
    HOPELESS,
    agreements,
    runtime_column,
    sample_by_sample,
    truth_column,
    write_worst,
)
from actconform.checking.agreement_result import Agreement
from actconform.checking.dataset import data_set
from actconform.checking.inputs import read_samples
from actconform.checking.model_file import ModelFile
from actconform.checking.runs import RunFailure
from actconform.checking.source import read_source
from actconform.checking.user_metric import UserMetric, user_metric
from actconform.errors import UsageError

MODEL = '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 6] x) => (float[n, 6] y) { y = Neg(x) }'
ROWS = 40


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("model.onnx").write_bytes(onnx.parser.parse_model(MODEL).SerializeToString())
    x = np.random.default_rng(1).standard_normal((ROWS, 6)).astype(np.float32)
    np.savez("data.npz", x=x, label=(-x).argmax(axis=1))
    return read_source(Path("model.onnx"))


def negative(inputs):
    return {"y": -inputs["x"]}


def off_at(*indices, by=1.0):
    """Answer as `negative` does, but for the samples of these numbers, in order of the calls."""
    calls = iter(range(10**9))

    def answer(inputs):
        k = next(calls)
        return {"y": -inputs["x"] + np.float32(by * (1 + indices.index(k)) if k in indices else 0)}

    return answer


def agreed(source, *answers, metric=None, right=negative, **options):
    columns = [sample_by_sample(f"runtime {k}", answer) for k, answer in enumerate(answers)]
    data = data_set("data.npz", source)
    return agreements(sample_by_sample("truth", right), columns, data, metric=metric, **options)


def test_a_column_that_gives_the_same_agrees_and_has_no_worst_sample(source):
    seen = []
    (column,) = agreed(source, negative, progress=seen.append)
    (output,) = column.agreement.outputs
    assert (output.top_1, output.top_5, output.rank_correlation, output.unequal) == (1.0, 1.0, pytest.approx(1.0), 0)
    assert (column.agreement.samples, column.agreement.status, column.agreement.worst) == (ROWS, "compared", [])
    assert seen[0] == 1
    assert seen[-1] == ROWS
    assert seen == sorted(seen)


def test_the_worst_samples_are_kept_and_written_with_what_was_expected(source):
    right, wrong = agreed(source, negative, off_at(3, 17, 30, 5), keep=3)
    assert right.worst == []
    x = np.load("data.npz")["x"]
    errors = {index: (1 + k) / np.abs(x[index]).max() for k, index in enumerate((3, 17, 30, 5))}
    worst = sorted(errors, key=errors.get, reverse=True)[:3]
    assert [sample.index for sample in wrong.agreement.worst] == worst
    assert wrong.agreement.worst[0].error == pytest.approx(errors[worst[0]], rel=1e-6)
    written = write_worst(wrong, Path("worst"), source)
    assert [Path(sample.folder).name for sample in written.worst] == [f"test_data_set_{k}" for k in range(3)]
    saved = read_samples(Path("worst"), source)
    first = x[worst[:1]]
    np.testing.assert_array_equal(saved.samples[0].arrays["x"], first)
    np.testing.assert_array_equal(saved.references[0]["y"], -first)


def test_an_agreement_can_be_written_as_json_and_read_back(source):
    _, wrong = agreed(source, negative, off_at(3), metric=UserMetric(lambda outputs, sample: 1.0, "a:b"))
    encoded = msgspec.json.encode(wrong.agreement)
    assert msgspec.json.decode(encoded, type=Agreement) == wrong.agreement


def test_a_sample_that_fails_is_named_and_costs_no_other(source):
    def fails(inputs):
        return RunFailure("crash", "was killed\nby SIGSEGV") if inputs["x"][0, 0] > 1.2 else negative(inputs)

    bad = np.flatnonzero(np.load("data.npz")["x"][:, 0] > 1.2)
    fine, failed = agreed(source, negative, fails)
    assert fine.agreement.failed == 0
    assert failed.agreement.failed == len(bad) > 0
    assert failed.agreement.samples == ROWS - len(bad)
    first = failed.agreement.failures[0]
    assert (first.index, first.column, first.kind, first.message) == (
        bad[0],
        "runtime 1",
        "crash",
        "was killed by SIGSEGV",
    )


def test_a_column_that_answers_nothing_is_given_up_and_the_other_goes_on(source):
    calls = []

    def refuses(inputs):
        calls.append(1)
        return RunFailure("timeout", "no answer")

    fine, refused = agreed(source, negative, refuses)
    assert (fine.agreement.samples, refused.agreement.status) == (ROWS, "given up")
    assert HOPELESS <= len(calls) <= 2 * HOPELESS
    (alone,) = agreed(source, negative, right=refuses)
    assert (alone.agreement.status, alone.agreement.failures[0].column) == ("given up", "truth")


def test_a_metric_of_outputs_and_labels_is_averaged_for_both_columns(source):
    def accuracy(outputs, sample):
        return np.mean(outputs["y"].argmax(axis=1) == sample["label"])

    by = np.array([100, 0, 0, 0, 0, 0])
    (column,) = agreed(source, off_at(0, 1, 2, 3, by=by), metric=UserMetric(accuracy, "net:accuracy"))
    metric = column.agreement.metric
    x = np.load("data.npz")["x"]
    mistaken = int(np.sum((-x[:4]).argmax(axis=1) != 0))
    assert (metric.compares, metric.samples, metric.expected) == (False, ROWS, 1.0)
    assert metric.actual == pytest.approx(1 - mistaken / ROWS)
    assert (metric.differing, metric.largest_difference) == (mistaken, 1.0)


def test_a_metric_of_both_columns_is_called_once(source):
    def distance(actual, expected):
        return float(np.abs(actual["y"] - expected["y"]).max())

    (column,) = agreed(source, off_at(5, by=2.0), metric=UserMetric(distance, "net:distance"))
    metric = column.agreement.metric
    assert (metric.compares, metric.expected) == (True, None)
    assert metric.actual == pytest.approx(2 / ROWS, rel=1e-6)


def test_samples_without_a_number_count_in_no_mean(source):
    def sometimes(outputs, sample):
        return math.nan if outputs["y"][0, 0] < 0 else 2.0

    (column,) = agreed(source, negative, metric=UserMetric(sometimes, "net:sometimes"))
    metric = column.agreement.metric
    undefined = int(np.sum(np.load("data.npz")["x"][:, 0] > 0))
    assert (metric.undefined, metric.samples, metric.actual, metric.differing) == (undefined, ROWS - undefined, 2.0, 0)


WRONG = {
    "raises": ("def m(outputs, sample):\n    return sample['labels']", "sample 0, truth: raised KeyError: 'labels'", "`return sample['labels']`"),
    "array": ("def m(outputs, sample):\n    return outputs['y'][0]", "gave an array of shape [6]", "take a mean"),
    "text": ("def m(outputs, sample):\n    return 'good'", "could not convert", "gives a number"),
    "nothing": ("def m(outputs, sample):\n    pass", "gave None", "gives a number"),
    "arguments": ("def m(a, b, c):\n    return 1", "missing 1 required positional argument", "(outputs, sample) or (expected, actual)"),
    "number": ("m = 3", "is of type int", "expected a function"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "words", "more"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_with_a_metric_is_told_with_the_sample(source, request, body, words, more):
    module = f"metric_{request.node.callspec.id}"
    Path(f"{module}.py").write_text(f"{body}\n")
    with pytest.raises(UsageError) as refusal:
        agreed(source, negative, metric=user_metric(f"{module}:m"))
    message = str(refusal.value)
    assert f"--metric {module}:m" in message
    assert words in message
    assert more in message


def test_a_runtime_is_held_against_the_truth_of_the_graph(source, runtime):
    with ModelFile(source.model) as file:
        column = runtime_column(runtime("ort-cpu"), file)
        (right,) = agreements(truth_column(source), [column], data_set("data.npz", source, most=20))
    assert (right.agreement.expected, right.agreement.actual) == ("the graph in float64", "ort-cpu")
    assert (right.agreement.samples, right.agreement.outputs[0].unequal) == (20, 0)
