"""Kernels of rows and of two inputs at their stated samples: a right program shows nothing, a wrong one shows where it is wrong."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from actconform.catalog.kernels import KERNELS
from actconform.errors import SweepError, Unsupported, WorkerCrash
from actconform.sweep.row_sample import is_sampled, row_vectors, sample_in_words, swept_rows
from actconform.types import Case, FindingClass
from actconform.workers.protocol import Failure, JobResult

ONES, SPECIAL, ZEROS = 63, 127, 0  # chunks: |x| in [0.5, 2); the largest numbers, infinity, NaN; zero and subnormals


def softmax(x):
    wide = x.astype(np.float64)
    with np.errstate(invalid="ignore"):
        raised = np.exp(wide - wide.max(axis=-1, keepdims=True))
        return (raised / raised.sum(axis=-1, keepdims=True)).astype(np.float32)


def prelu(x, slope):
    with np.errstate(all="ignore"):
        return np.where(x > 0, x, x * slope)


def glu(x):
    a, b = np.split(x.astype(np.float64), 2, axis=-1)
    with np.errstate(all="ignore"):
        return (a / (1 + np.exp(-b))).astype(np.float32)


def softmax_gradient(x, g):
    p = softmax(x).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return {"d_x": (p * (g - (p * g).sum(axis=-1, keepdims=True))).astype(np.float32)}


def prelu_gradient(x, slope, g):
    with np.errstate(all="ignore"):
        d_x = np.where(np.isnan(x), x, np.where(x > 0, g, g * slope))
        return {"d_x": d_x, "d_slope": np.where(x > 0, 0, g * x).sum(axis=0)}


def glu_gradient(x, g):
    a, b = np.split(x.astype(np.float64), 2, axis=-1)
    with np.errstate(all="ignore"):
        gate = 1 / (1 + np.exp(-b))
        return {"d_x": np.concatenate([g * gate, a * g * gate / (1 + np.exp(b))], axis=-1).astype(np.float32)}


RIGHT = {"softmax": softmax, "prelu": prelu, "glu": glu}
RIGHT_GRADIENT = {"softmax": softmax_gradient, "prelu": prelu_gradient, "glu": glu_gradient}


class Program:
    """A worker that computes by a function, of a gradient with the cotangent `g`."""

    def __init__(self, function, name="y"):
        self.function, self.name, self.shapes = function, name, []

    def run(self, job, timeout):
        self.shapes += [call.inputs["x"].shape for call in job.calls]
        return JobResult(outputs=[self.outputs(call) for call in job.calls])

    def outputs(self, call):
        if call.cotangents is None:
            return {self.name: self.function(**call.inputs)}
        return self.function(**call.inputs, g=call.cotangents["y"])


def sweep(name, worker, chunk=ONES, aspect="value"):
    return swept_rows(worker, KERNELS[name], Case(name, aspect, "f32", "fake"), None, chunk, 1.0)


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("chunk", [ONES, SPECIAL, ZEROS, ONES + 128])
def test_a_right_program_shows_nothing(name, chunk):
    swept = sweep(name, Program(RIGHT[name]), chunk)
    counted = swept.statistics
    assert counted.findings == ()
    assert counted.inputs == sum(
        vector.truth["y"].size for vector in row_vectors(KERNELS[name], "value", chunk).vectors
    )
    assert counted.correctly_rounded >= 0.99 * counted.inputs
    assert sum(counted.histogram) == counted.inputs
    assert swept.sha256 != sweep(name, Program(RIGHT[name]), ONES + 1).sha256


@pytest.mark.parametrize("name", RIGHT_GRADIENT)
@pytest.mark.parametrize("chunk", [ONES, SPECIAL, ZEROS, ONES + 128])
def test_a_right_gradient_shows_nothing_but_conventions(name, chunk):
    counted = sweep(name, Program(RIGHT_GRADIENT[name]), chunk, "gradient").statistics
    assert counted.findings == ()
    vectors = row_vectors(KERNELS[name], "gradient", chunk).vectors
    assert counted.inputs == sum(truth.size for vector in vectors for truth in vector.truth.values())
    assert sum(counted.histogram) == counted.inputs


def test_cotangents_are_signed_powers_of_two_of_which_no_gradient_is_all_zero():
    for vector in row_vectors(KERNELS["softmax"], "gradient", ONES).vectors:
        cotangents = vector.cotangents["y"]
        assert set(np.unique(np.abs(cotangents))) == {0.125, 0.25, 0.5, 1.0}
        assert (cotangents < 0).any()
        assert np.abs(vector.truth["d_x"]).max() > 0.01


def test_a_gradient_is_found_wrong_in_its_tensor():
    def off(x, slope, g):
        right = prelu_gradient(x, slope, g)
        return {
            **right,
            "d_slope": right["d_slope"] * np.float32(1.001),
            "d_x": np.where(slope == 0, np.nan, right["d_x"]),
        }

    findings = sweep("prelu", Program(off), ONES + 128, "gradient").statistics.findings
    assert {(finding.class_, finding.tensor) for finding in findings} == {
        (FindingClass.NAN_MADE, "d_x"),
        (FindingClass.SCALED_ERROR, "d_slope"),
    }
    (made,) = (finding for finding in findings if finding.tensor == "d_x")
    assert made.count == 64 * 2  # of both zeros as slopes, and 64 x


def test_rows_of_axis_1_are_swept_along_it():
    def along(x):
        return np.moveaxis(softmax(np.moveaxis(x, 1, -1)), -1, 1)

    worker = Program(along)
    assert sweep("softmax-axis1", worker).statistics.findings == ()
    assert worker.shapes == [(64, 2, 3), (64, 17, 3), (64, 256, 3)]
    assert sweep("softmax-axis1", Program(softmax)).statistics.findings != ()
    assert "each beside half of another" in sample_in_words(KERNELS["softmax-axis1"], "value")


def test_the_sample_is_what_is_stated():
    worker = Program(softmax)
    sweep("softmax", worker)
    assert worker.shapes == [(64, 2), (64, 17), (64, 256)]
    (pairs,) = row_vectors(KERNELS["prelu"], "value", ONES).vectors
    x, slope = pairs.inputs["x"], pairs.inputs["slope"]
    assert {int(pattern) >> 23 for pattern in x.view(np.uint32).flat} == {126, 127}
    assert len(np.unique(x)) == 64
    finite = {binade for binade in range(512) if binade & 0xFF != 0xFF}
    assert {int(pattern) >> 23 for pattern in slope.view(np.uint32)} == finite
    assert (
        len(np.unique(row_vectors(KERNELS["glu"], "value", ONES).vectors[0].inputs["x"][0, 516:].view(np.uint32)))
        == 516
    )


def test_all_rows_begin_with_numbers_of_the_chunk_and_every_second_has_both_signs():
    for vector in row_vectors(KERNELS["softmax"], "value", ONES).vectors[1:]:
        rows = vector.inputs["x"]
        assert ((np.abs(rows[:, 0]) >= 0.5) & (np.abs(rows[:, 0]) < 2)).all()
        assert (np.abs(rows) <= np.abs(rows[:, :1])).all()
        assert [bool((row < 0).any()) for row in rows] == [False, True] * 32
        assert all(len(np.unique(row)) == row.size for row in rows)


def test_one_wrong_element_is_found_with_its_input():
    def off(x):
        y = softmax(x)
        if x.shape[1] == 17:
            y[5, 3] *= np.float32(1.001)
        return y

    counted = sweep("softmax", Program(off)).statistics
    (finding,) = counted.findings
    x = row_vectors(KERNELS["softmax"], "value", ONES).vectors[1].inputs["x"][5, 3]
    assert (finding.class_, finding.count) == (FindingClass.SCALED_ERROR, 1)
    assert finding.interval.first == finding.interval.last == finding.worst.input_hex == f"0x{x.view(np.uint32):08x}"
    assert counted.scaled.error > 1
    assert counted.scaled.input_hex == counted.ulp.input_hex == finding.worst.input_hex
    assert counted.scaled.at == counted.ulp.at == finding.evidence == "chunk 63, call 1, y[5, 3]"


@pytest.mark.parametrize(
    ("name", "aspect"), [("glu", "value"), ("glu", "gradient"), ("prelu", "gradient"), ("prelu", "value")]
)
def test_a_worst_error_of_pairs_names_both_numbers(name, aspect):
    def off(**inputs):
        right = (RIGHT if aspect == "value" else RIGHT_GRADIENT)[name](**inputs)
        outputs = right if aspect == "gradient" else {"y": right}
        last = list(outputs)[-1]
        outputs[last] = outputs[last].copy()
        outputs[last].flat[place] *= np.float32(1.5)
        return outputs if aspect == "gradient" else outputs["y"]

    (vector,) = row_vectors(KERNELS[name], aspect, ONES + 128).vectors
    tensor = list(vector.truth)[-1]
    x, slope = vector.inputs["x"], vector.inputs.get("slope")
    place = int(np.flatnonzero((np.abs(vector.truth[tensor]) > 0.01) & np.isfinite(vector.truth[tensor]))[700])
    counted = sweep(name, Program(off), ONES + 128, aspect).statistics
    if slope is None:
        row, column = divmod(place, vector.truth[tensor].shape[1])
        half = x.shape[1] // 2
        pair = (x[row, column % half], x[row, half + column % half])
    else:
        pair = (x.flat[place], slope.flat[place % slope.size])
    bits = " ".join(f"0x{number.view(np.uint32):08x}" for number in pair)
    index = ", ".join(map(str, np.unravel_index(place, vector.truth[tensor].shape)))
    assert counted.scaled.at == f"{bits} (chunk 191, call 0, {tensor}[{index}])"
    assert [finding.evidence for finding in counted.findings] == [counted.scaled.at]


def test_both_binades_of_a_chunk_have_errors_of_their_own():
    def off(x):
        y = softmax(x)
        y[5] *= np.float32(1.001)
        y[40] *= np.float32(1.002)
        return y

    first, second = sweep("softmax", Program(off)).statistics.binades
    assert (first.binade, second.binade) == (126, 127)
    assert "y[5, " in first.scaled.at
    assert "y[40, " in second.scaled.at
    assert 1 < first.scaled.error < second.scaled.error


def test_a_nan_is_told_by_the_sign_of_its_input():
    def made(x, slope):
        y = prelu(x, slope)
        y[:, 7] = np.nan
        return y

    for chunk, sign in ((ONES, "0x3"), (ONES + 128, "0xb")):
        (finding,) = sweep("prelu", Program(made), chunk).statistics.findings
        assert (finding.class_, finding.count) == (FindingClass.NAN_MADE, 64)
        assert finding.interval.first[:3] in {sign, sign.replace("3", "4")[:3]}


@pytest.mark.parametrize(
    ("worker", "words"),
    [
        (Program(lambda x: softmax(x).astype(np.float64)), "chunk 63: dtype float64, expected float32"),
        (Program(lambda x: softmax(x)[:, :1]), r"chunk 63: shape"),
        (Program(softmax, "z"), "chunk 63: output 'y' is missing"),
        (
            SimpleNamespace(run=lambda job, timeout: JobResult(failure=Failure("run", "error", "no"))),
            "softmax/value/f32/fake, chunk 63: no",
        ),
    ],
)
def test_a_program_that_fails_or_gives_something_else_is_an_error(worker, words):
    with pytest.raises(SweepError, match=words):
        sweep("softmax", worker)


def test_a_worker_that_dies_is_an_error():
    def die(job, timeout):
        raise WorkerCrash("died", "SIGKILL")

    with pytest.raises(SweepError, match="chunk 63: died"):
        sweep("softmax", SimpleNamespace(run=die))


@pytest.mark.parametrize(
    ("name", "aspect", "words"),
    [
        ("argmax", "value", "argmax gives indices"),
        ("hardmax", "gradient", "hardmax has no gradient, by declaration"),
    ],
)
def test_what_has_no_sample_is_refused_with_the_reason(name, aspect, words):
    assert is_sampled(KERNELS[name])
    with pytest.raises(Unsupported, match=words):
        sample_in_words(KERNELS[name], aspect)


def test_a_kernel_without_a_formula_is_refused():
    with pytest.raises(Unsupported, match="has no float64 formula"):
        sample_in_words(msgspec.structs.replace(KERNELS["softmax"], name="softmax-of-mine"), "value")
    assert not is_sampled(KERNELS["tanh"])


def test_rows_of_another_axis_are_refused():
    with pytest.raises(Unsupported, match="has no stated sample: one is made for rows of the last axis or of axis 1"):
        sample_in_words(msgspec.structs.replace(KERNELS["softmax"], axis=0), "value")
