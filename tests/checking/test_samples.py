"""The samples of a check: the user's own with what was saved beside them, or drawn at sizes that a runtime takes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from small_models import made

from actconform.checking.inputs import write_sample
from actconform.checking.runs import RunFailure, RuntimeOutputs
from actconform.checking.samples import draw_user_samples, read_user_samples
from actconform.checking.source import read_source
from actconform.errors import UsageError

MODEL = made("(float[n, 4] x) => (float[n, 4] y) { y = Neg (x) }")
FIXED = made(
    "(float[n, 4] x) => (float[n] y) { p = MatMul (x, w)  y = Reshape (p, two) }",
    {"w": np.ones((4, 1), np.float32), "two": np.int64([2])},
)


def source(folder, model=MODEL):
    onnx.save(model, folder / "model.onnx")
    return read_source(folder / "model.onnx")


def drawn(place, runtimes=(), **how):
    return draw_user_samples(place, runtimes, **({"seed": 0, "count": None, "ranges": {}, "max_memory": None} | how))


def test_a_sample_has_the_saved_output_of_a_reference(tmp_path):
    inputs, reference = tmp_path / "in.npz", tmp_path / "out.npz"
    x = np.ones((2, 4), np.float32)
    np.savez(inputs, x=x)
    np.savez(reference, y=-x)
    (sample,), _ = read_user_samples(inputs, source(tmp_path), reference, None)
    np.testing.assert_array_equal(sample.inputs["x"], x)
    np.testing.assert_array_equal(sample.saved["y"], -x)
    assert sample.facts.origin == "in.npz"
    assert sample.facts.shapes == {"x": (2, 4)}


def test_folders_of_samples_have_their_own_outputs(tmp_path):
    place = source(tmp_path)
    for i in range(2):
        folder = tmp_path / "sets" / f"test_data_set_{i}"
        write_sample(folder, {"x": np.full((1, 4), i, np.float32)}, place)
        (folder / "output_0.pb").write_bytes(
            numpy_helper.from_array(np.full((1, 4), -i, np.float32), "y").SerializeToString()
        )
    samples, _ = read_user_samples(tmp_path / "sets", place, None, None)
    assert [sample.facts.origin for sample in samples] == ["sets/test_data_set_0", "sets/test_data_set_1"]
    assert [float(sample.saved["y"][0, 0]) for sample in samples] == [0, -1]


def test_one_reference_for_several_samples_is_refused(tmp_path):
    place = source(tmp_path)
    for i in range(2):
        write_sample(tmp_path / "sets" / f"test_data_set_{i}", {"x": np.zeros((1, 4), np.float32)}, place)
    np.savez(tmp_path / "out.npz", y=np.zeros((1, 4), np.float32))
    with pytest.raises(UsageError, match=r"belongs to one sample, and --inputs has 2; put output_0\.pb"):
        read_user_samples(tmp_path / "sets", place, tmp_path / "out.npz", None)


def test_samples_are_drawn_alike_by_a_seed_and_say_how(tmp_path):
    place = source(tmp_path)
    first, again, other = drawn(place), drawn(place), drawn(place, seed=1)
    assert len({sample.inputs["x"].shape[0] for sample in first}) > 1
    for one, two, three in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one.inputs["x"], two.inputs["x"])
        assert not np.array_equal(one.inputs["x"], three.inputs["x"])
        assert one.facts.origin == "drawn by seed 0"
        assert one.facts.drawn["x"]
    assert len(drawn(place, count=3)) == 3


def test_sizes_are_those_that_the_runtime_takes_and_one_that_is_absent_is_not_asked(tmp_path, runtime):
    place = source(tmp_path, FIXED)
    samples = drawn(place, [runtime("no-accelerator"), runtime("silent"), runtime("ort-cpu")])
    assert {sample.inputs["x"].shape for sample in samples} == {(2, 4)}


class Gone:
    """A runtime that answers nothing."""

    name = "gone"

    def __init__(self, kind):
        self.failure = RunFailure(kind, "was killed by SIGABRT")
        self.asked = 0

    def start(self):
        return {}

    def outputs(self, *_):
        self.asked += 1
        return RuntimeOutputs(failure=self.failure)


@pytest.mark.parametrize("kind", ["crash", "timeout"])
def test_where_a_runtime_dies_the_graph_decides_which_sizes_fit(tmp_path, kind):
    gone = Gone(kind)
    samples = drawn(source(tmp_path, FIXED), [gone])
    assert {sample.inputs["x"].shape for sample in samples} == {(2, 4)}
    assert gone.asked == 1


def test_an_error_of_a_runtime_is_a_refusal_of_the_inputs(tmp_path):
    with pytest.raises(UsageError, match="no inputs were found that are taken"):
        drawn(source(tmp_path, FIXED), [Gone("error")])


def test_inputs_that_kill_a_process_are_taken(tmp_path, runtime):
    place = source(tmp_path)
    killed, healthy = drawn(place, [runtime("dies")]), drawn(place)
    assert [sample.facts.shapes for sample in killed] == [sample.facts.shapes for sample in healthy]
