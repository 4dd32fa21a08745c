"""`actconform.train_model`: the numbers of the command, of files and of what is in memory."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

sys.path.append(str(Path(__file__).parents[1] / "training"))

from own_models import LOSS, rows, save_two_layers

import actconform
from actconform.errors import UsageError

pytest.importorskip("onnxruntime")
pytest.importorskip("safetensors")


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("data.npz", **rows())
    return save_two_layers()


def test_a_model_and_arrays_in_memory_are_trained_as_files_are(model):
    given = model.SerializeToString()
    memory = actconform.train_model(model, rows(), loss=LOSS, epochs=2, parameters="fc2_*", out="memory")
    files = actconform.train_model("model.onnx", "data.npz", loss=LOSS, epochs=2, parameters=["fc2_*"], out="files")
    assert (memory.ending, memory.step, memory.parameters) == ("finished", 14, ("fc2_w", "fc2_b"))
    assert memory.losses.tobytes() == files.losses.tobytes()
    assert model.SerializeToString() == given
    first, second = (onnx.load(f"{folder}/model.onnx").graph.initializer for folder in ("memory", "files"))
    assert [tensor.SerializeToString() for tensor in first] == [tensor.SerializeToString() for tensor in second]
    more = actconform.train_model(model, rows(), loss=LOSS, epochs=3, parameters="fc2_*", out="memory", resume=True)
    assert more.step == 21
    assert more.losses[:14].tobytes() == memory.losses.tobytes()


def test_what_cannot_be_is_raised_and_leaves_nothing(model, capsys):
    with pytest.raises(TypeError, match="did you mean epochs"):
        actconform.train_model(model, rows(), loss=LOSS, epoch=2, out="out")
    with pytest.raises(UsageError, match="there is no loss 'mse'"):
        actconform.train_model(model, rows(), loss="mse", out="out")
    with pytest.raises(UsageError, match="'label' is no array of numbers"):
        actconform.train_model(model, {**rows(), "label": np.array([{}])}, loss=LOSS, out="out")
    with pytest.raises(UsageError, match=r"^data.npz: target 'label'.*\[240\]"):
        actconform.train_model(model, {**rows(), "label": np.zeros(240, np.float32)}, loss=LOSS, out="out")
    assert not Path("out").exists()
    assert capsys.readouterr() == ("", "")


def test_the_step_of_a_broken_end_is_the_last_one_of_finite_numbers(model):
    huge = {"loss": "mean-squared-error", "optimizer": "sgd", "learning_rate": 1e3, "batch": 8, "steps": 60}
    outcome = actconform.train_model(model, rows(), **huge, out="out")
    assert outcome.ending == "broken"
    assert outcome.step == outcome.broken.step - 1 == len(outcome.losses) - 1
