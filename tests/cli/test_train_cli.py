"""`actconform train`: what it writes is the arithmetic of its optimizer, it goes on bit for bit, and what it refuses it names."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

sys.path.append(str(Path(__file__).parents[1] / "training"))

from own_models import LOSS, rows, save_model, save_two_layers

from actconform.checking.runs import RunFailure, RuntimeRuns

pytest.importorskip("onnxruntime")
load_file = pytest.importorskip("safetensors.numpy").load_file

TRAIN = ("train", "model.onnx", "--data", "data.npz", "--loss", LOSS)
FILES = ("checkpoint.safetensors", "losses.csv", "model.onnx")
LINEAR = "g (float[n, 3] x) => (float[n, 2] y) { y = MatMul (x, w) }"


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Write model.onnx and data.npz into the folder that commands run in."""
    monkeypatch.chdir(tmp_path)
    save_two_layers()
    np.savez("data.npz", **rows())
    return tmp_path


def written(folder: str) -> dict[str, bytes]:
    return {name: (Path(folder) / name).read_bytes() for name in FILES}


def weights(path: str) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


@pytest.mark.parametrize(
    ("runtime", "plugin"),
    [
        ("ort-cpu", "actconform_onnxruntime"),
        ("openvino", "actconform_openvino"),
        ("onnx-reference", "actconform_reference"),
    ],
)
def test_a_step_of_gradient_descent_is_that_of_the_formula_in_every_runtime(cli, files, runtime, plugin):
    pytest.importorskip(plugin)
    pytest.importorskip({"openvino": "openvino"}.get(runtime, "onnx"))
    rng = np.random.default_rng(0)
    w = rng.normal(size=(3, 2)).astype(np.float32)
    save_model("linear.onnx", LINEAR, {"w": w})
    x, t = (rng.normal(size=(8, size)).astype(np.float32) for size in (3, 2))
    np.savez("linear.npz", x=x, t=t)
    command = ("train", "linear.onnx", "--data", "linear.npz", "--loss", "mean-squared-error", "--batch", "8")
    how = ("--optimizer", "sgd", "--learning-rate", "0.5", "--momentum", "0.9", "--epochs", "2", "--runtime", runtime)
    said = cli(*command, *how)
    assert said.code == 0, said.err
    before, momentum, losses = w.astype(np.float64), np.zeros((3, 2)), []
    for _ in range(2):
        error = x.astype(np.float64) @ before - t
        losses.append(float((error**2).mean()))
        momentum = 0.9 * momentum + 2.0 * x.T @ error / error.size
        before = before - 0.5 * momentum
    np.testing.assert_allclose(weights("actconform-train/model.onnx")["w"], before, rtol=1e-4, atol=1e-5)
    state = load_file("actconform-train/checkpoint.safetensors")
    np.testing.assert_allclose(state["w/momentum"], momentum, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state["history/loss"], losses, rtol=1e-4)


def test_a_training_learns_says_so_and_leaves_the_model_alone(cli, files):
    given = Path("model.onnx").read_bytes()
    said = cli(*TRAIN, "--epochs", "30", "--validation", "0.2", "--learning-rate", "0.02", "--out", "out")
    assert said.code == 0, said.err
    assert Path("model.onnx").read_bytes() == given
    lines = Path("out/losses.csv").read_text().splitlines()
    assert lines[0] == "step,epoch,loss,validation_loss"
    assert len(lines) == 1 + 30 * 6
    assert [line.endswith(",") for line in lines[1:13]] == ([True] * 5 + [False]) * 2
    first, last = (float(lines[index].split(",")[2]) for index in (1, -1))
    assert last < 0.5 < first
    assert "actconform check out/model.onnx" in said.out
    for name in FILES:
        assert f"out/{name}" in said.out
    assert "in epoch 1 ->" in said.out
    assert "epoch 30 of 30" in said.err
    x = rows()["x"]
    logits = np.tanh(x @ weights("out/model.onnx")["fc1_w"] + weights("out/model.onnx")["fc1_b"])
    logits = logits @ weights("out/model.onnx")["fc2_w"] + weights("out/model.onnx")["fc2_b"]
    assert (logits.argmax(-1) == rows()["label"].argmax(-1)).mean() > 0.9


@pytest.mark.parametrize(
    ("how", "first"),
    [
        (
            ("--optimizer", "adamw", "--weight-decay", "0.01", "--validation", "0.2", "--stop-patience", "50"),
            ("--epochs", "2"),
        ),
        (
            ("--optimizer", "sgd", "--momentum", "0.9", "--nesterov", "--decay", "0.7", "--decay-steps", "4"),
            ("--steps", "10"),
        ),
        (("--optimizer", "rmsprop", "--seed", "3", "--batch", "50"), ("--steps", "5")),
    ],
    ids=["adamw", "sgd", "rmsprop"],
)
def test_a_training_that_goes_on_is_bit_for_bit_that_which_never_stopped(cli, files, how, first):
    assert cli(*TRAIN, *how, "--epochs", "5", "--out", "whole").code == 0
    assert cli(*TRAIN, *how, *first, "--out", "parts").code == 0
    assert written("parts") != written("whole")
    said = cli(*TRAIN, *how, "--epochs", "5", "--out", "parts", "--resume")
    assert said.code == 0, said.err
    assert written("parts") == written("whole")


def test_only_named_weights_are_trained(cli, files):
    assert cli(*TRAIN, "--parameters", "fc2_*", "--out", "out").code == 0
    before, after = weights("model.onnx"), weights("out/model.onnx")
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"fc2_w", "fc2_b"}


def test_training_ends_early_with_the_weights_of_the_best_epoch(cli, files):
    how = ("--validation", "0.5", "--batch", "16", "--learning-rate", "0.2", "--stop-patience", "3")
    said = cli(*TRAIN, *how, "--epochs", "400", "--out", "out")
    assert said.code == 0, said.err
    state = load_file("out/checkpoint.safetensors")
    judged = state["history/validation"]
    assert 4 <= len(judged) < 400
    assert int(judged.argmin()) == len(judged) - 4
    assert f"the weights are those of epoch {len(judged) - 3}" in said.out
    assert cli(*TRAIN, *how, "--epochs", str(len(judged) - 3), "--out", "best").code == 0
    best, after = weights("best/model.onnx"), weights("out/model.onnx")
    for name in after:
        np.testing.assert_array_equal(after[name], best[name])
        assert not np.array_equal(after[name], state[name])


def test_a_fixed_batch_is_the_models(cli, files):
    save_two_layers(batch="16")
    assert cli(*TRAIN, "--validation", "0.1", "--out", "out").code == 0
    assert len(Path("out/losses.csv").read_text().splitlines()) == 1 + 216 // 16


def test_a_number_that_is_not_finite_ends_the_training(cli, files):
    save_model("linear.onnx", LINEAR, {"w": np.ones((3, 2), np.float32)})
    np.savez("linear.npz", x=np.ones((64, 3), np.float32), t=np.zeros((64, 2), np.float32))
    command = ("train", "linear.onnx", "--data", "linear.npz", "--loss", "mean-squared-error", "--optimizer", "sgd")
    said = cli(*command, "--learning-rate", "1e30", "--batch", "8", "--out", "out")
    assert said.code == 1
    assert "loss is inf in step 2 (epoch 1)" in said.err
    said = cli(*command, "--learning-rate", "3e38", "--batch", "8", "--out", "out")
    assert said.code == 1
    assert "w[0, 0] is -inf in step 1 (epoch 1)" in said.err
    assert "nothing is learned" in said.err
    assert "TRAINED" not in said.out
    assert [path.name for path in Path("out").iterdir()] == ["losses.csv"]


@pytest.mark.parametrize(("ending", "words"), [("raises", "out of luck"), ("dies", "SIGKILL")])
def test_a_runtime_that_fails_costs_what_came_after_the_checkpoint(cli, files, install, monkeypatch, ending, words):
    install(failing="failing_trainer:Plugin")
    monkeypatch.setenv("ACTCONFORM_TEST_END", ending)
    monkeypatch.setenv("ACTCONFORM_TEST_STEPS", "17")
    command = (*TRAIN, "--runtime", "failing", "--out", "out")
    assert cli(*command, "--steps", "9").code == 0
    said = cli(*command, "--epochs", "4", "--resume")
    assert said.code == 1
    assert "failing failed after" in said.err
    assert words in said.err
    assert "no model was written" in said.err
    assert re.search(r"go on from step \d+ with: actconform train .* --resume", said.err)
    monkeypatch.setenv("ACTCONFORM_TEST_STEPS", "1000")
    assert cli(*command, "--epochs", "4", "--resume").code == 0
    assert cli(*command[:-1], "whole", "--epochs", "4").code == 0
    assert written("out") == written("whole")


@pytest.fixture
def intercept(monkeypatch):
    """Have a function see every message to the runtime; a failure that it returns is the answer."""
    make_steps = RuntimeRuns.make_steps

    def install(seen):
        monkeypatch.setattr(RuntimeRuns, "make_steps", lambda runs, job: seen(job) or make_steps(runs, job))

    return install


def test_a_runtime_that_gives_no_state_has_failed(cli, files, intercept):
    intercept(lambda job: RunFailure("crash", "gone") if job.give_state else None)
    said = cli(*TRAIN, "--out", "out")
    assert (said.code, "ort-cpu failed after 7 steps" in said.err, "gone" in said.err) == (1, True, True)
    assert len(Path("out/losses.csv").read_text().splitlines()) == 1 + 7
    assert [path.name for path in Path("out").iterdir()] == ["losses.csv"]


def test_ctrl_c_does_not_wait_for_all_of_validation(cli, files, intercept, monkeypatch):
    monkeypatch.setattr("actconform.training.own_model.JOB_SECONDS", 0.0)
    how = ("--validation", "0.5", "--batch", "16", "--stop-patience", "50", "--epochs", "2")
    evaluated = []

    def press(job):
        evaluated.append(len(job.evaluated))
        if job.evaluated and sum(evaluated) == 4:  # one when the graphs are loaded, then the third of eight
            signal.raise_signal(signal.SIGINT)

    intercept(press)
    said = cli(*TRAIN, *how, "--out", "parts")
    assert said.code == 1
    assert "interrupted after step 7 of 14" in said.err
    assert sum(evaluated) == 4
    assert max(evaluated) == 1
    evaluated[:] = [100]
    assert cli(*TRAIN, *how, "--out", "parts", "--resume").code == 0
    assert cli(*TRAIN, *how, "--out", "whole").code == 0
    assert written("parts") == written("whole")


def test_ctrl_c_writes_what_goes_on_to_the_same_end(files):
    command = [sys.executable, "-m", "actconform", *TRAIN, "--validation", "0.2", "--out", "out", "--epochs", "100000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    line = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=60)[1]
    assert "epoch 1 of 100,000" in line
    assert process.returncode == 1
    assert "go on with: actconform train model.onnx --data data.npz" in err
    assert err.rstrip().endswith("--epochs 100000 --resume")
    step = len(load_file("out/checkpoint.safetensors")["history/loss"])
    assert f"after step {step:,} of" in err
    env = {**os.environ, "COLUMNS": "200"}
    rest = [sys.executable, "-m", "actconform", *TRAIN, "--validation", "0.2"]
    for more in (["--out", "out", "--resume"], ["--out", "whole"]):
        subprocess.run([*rest, "--steps", str(step + 9), *more], check=True, env=env, capture_output=True)
    assert written("out") == written("whole")


BAD = {
    "loss": (["--loss", "categorical-crossentropy"], ["did you mean categorical-cross-entropy"]),
    "optimizer": (["--optimizer", "adm"], ["'adm'", "did you mean adam"]),
    "number-of-another": (["--optimizer", "sgd", "--beta1", "0.9"], ["--beta1", "adam and adamw"]),
    "nesterov": (["--optimizer", "sgd", "--nesterov"], ["--momentum"]),
    "learning-rate": (["--learning-rate", "0"], ["--learning-rate 0", "positive"]),
    "learning-rate-nan": (["--learning-rate", "nan"], ["--learning-rate nan", "positive"]),
    "momentum": (["--optimizer", "sgd", "--momentum", "1"], ["--momentum 1", "below 1"]),
    "decay": (["--decay", "0"], ["--decay 0"]),
    "decay-steps": (["--decay-steps", "3"], ["--decay too"]),
    "batch": (["--batch", "0"], ["--batch 0"]),
    "batch-larger": (["--batch", "241"], ["--batch 241", "240 rows"]),
    "epochs-and-steps": (["--epochs", "1", "--steps", "1"], ["one of them"]),
    "output": (["--output", "logit"], ["model.onnx", "did you mean logits"]),
    "target": (["--target", "labels"], ["'labels'", "did you mean label"]),
    "target-is-input": (["--target", "x"], ["is an input"]),
    "runtime": (["--runtime", "ort-cup"], ["did you mean ort-cpu"]),
    "framework": (["--runtime", "torch"], ["ort-cpu"]),
    "parameters": (["--parameters", "fc3_w"], ["'fc3_w'", "did you mean fc"]),
    "validation": (["--validation", "1"], ["--validation 1"]),
    "seed": (["--seed", "-1"], ["--seed -1"]),
    "timeout": (["--timeout", "0"], ["--timeout 0", "1 or more seconds"]),
    "max-memory": (["--max-memory", "-1"], ["--max-memory -1", "GiB"]),
    "no-validation": (["--stop-patience", "2"], ["--validation"]),
    "no-patience": (["--stop-min-delta", "0.1"], ["--stop-patience"]),
    "no-checkpoint": (["--resume"], ["no out/checkpoint.safetensors", "without --resume"]),
    "no-data": (["--data", "dat.npz"], ["dat.npz", "No such file"]),
    "data-is-a-model": (["--data", "model.onnx"], ["model.onnx", "expected an .npz"]),
}


@pytest.mark.parametrize(("words", "expected"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_is_named_and_nothing_is_written(cli, files, words, expected):
    said = cli(*TRAIN, *words, "--out", "out")
    assert said.code == 2, said
    for text in expected:
        assert text in said.err
    assert not Path("out").exists()


def test_no_model_that_is_there_is_overwritten(cli, files):
    before = Path("model.onnx").read_bytes()
    said = cli(*TRAIN, "--out", ".")
    assert (said.code, "--out is empty, or the folder at hand" in said.err) == (2, True)
    said = cli(*TRAIN, "--out", str(files))
    assert (said.code, "holds a model.onnx" in said.err) == (2, True)
    assert cli(*TRAIN, "--out", "out").code == 0
    trained = Path("out/model.onnx").read_bytes()
    said = cli("train", "out/model.onnx", *TRAIN[2:], "--out", "out")
    assert (said.code, "--resume" in said.err) == (2, True)
    assert cli("train", "out/model.onnx", *TRAIN[2:], "--out", "next").code == 0
    assert Path("model.onnx").read_bytes() == before
    assert Path("out/model.onnx").read_bytes() == trained
    Path("file").write_text("")
    said = cli(*TRAIN, "--out", "file")
    assert (said.code, "is a file" in said.err) == (2, True)


def test_a_loss_has_to_be_given(cli, files):
    said = cli("train", "model.onnx", "--data", "data.npz")
    assert said.code == 2
    assert "--loss is missing" in said.err
    assert LOSS in said.err


W = np.ones((4, 3), np.float32)
MODELS = {
    "weights": ("g (float[n, 4] x) => (float[n, 4] y) { y = Tanh (x) }", {}, ["float32 weights"]),
    "outputs": (
        "g (float[n, 4] x) => (float[n, 3] y, float[n, 3] z) { y = MatMul (x, w) z = Tanh (y) }",
        {"w": W},
        ["2 outputs, y, z", "--output"],
    ),
    "operator": (
        "g (float[n, 4] x) => (float[n, 3] y) { h = MatMul (x, w) y = com.example.Odd (h) }",
        {"w": W},
        ["Odd"],
    ),
    "quantized": (
        "g (float[n, 4] x) => (float[n, 3] y) { q = QuantizeLinear (x, s) d = DequantizeLinear (q, s) y = MatMul (d, w) }",
        {"w": W, "s": np.float32(0.1)},
        ["quantized", "QuantizeLinear"],
    ),
}


@pytest.mark.parametrize(("text", "arrays", "expected"), MODELS.values(), ids=MODELS.keys())
def test_a_model_that_cannot_be_trained_is_told_why(cli, files, text, arrays, expected):
    save_model("model.onnx", text, arrays)
    if "com.example" in text:
        model = onnx.load("model.onnx")
        model.opset_import.add(domain="com.example", version=1)
        onnx.save(model, "model.onnx")
    said = cli(*TRAIN, "--out", "out")
    assert said.code == 2, said
    for word in ("model.onnx", *expected):
        assert word in said.err
    assert not Path("out").exists()


def test_a_target_that_would_be_broadcast_is_refused_where_the_model_leaves_the_size_open(cli, files):
    save_model("model.onnx", "g (float[n, 4] x) => (float[n, k] y) { y = MatMul (x, w) }", {"w": W})
    np.savez("data.npz", x=rows()["x"], t=rows()["x"][:, :1])
    said = cli("train", "model.onnx", "--data", "data.npz", "--loss", "mean-squared-error", "--out", "out")
    assert said.code == 2, said
    assert "'t' has shape [32, 1]" in said.err
    assert "[32, 3]" in said.err
    assert not Path("out").exists()


def test_a_checkpoint_of_something_else_is_refused_with_both_named(cli, files):
    assert cli(*TRAIN, "--out", "out").code == 0
    before = written("out")
    again = (*TRAIN, "--epochs", "2", "--out", "out")
    assert "--resume" in cli(*again).err
    said = cli(*again, "--learning-rate", "0.1", "--resume")
    assert (said.code, "--learning-rate is 0.1, and the checkpoint has 0.001" in said.err) == (2, True)
    said = cli(*again, "--seed", "4", "--resume")
    assert (said.code, "--seed is 4, and the checkpoint has 0" in said.err) == (2, True)
    said = cli(*TRAIN, "--steps", "3", "--out", "out", "--resume")
    assert (said.code, "has 7 steps" in said.err) == (2, True)
    np.savez("data.npz", **{name: array[::-1] for name, array in rows().items()})
    assert "other data" in cli(*again, "--resume").err
    np.savez("data.npz", **rows())
    save_two_layers(seed=5)
    assert "another model" in cli(*again, "--resume").err
    save_two_layers()
    assert written("out") == before
    path = Path("out/checkpoint.safetensors")
    for place in (3, 40, len(before[path.name]) - 9):
        content = bytearray(before[path.name])
        content[place] ^= 0xFF
        path.write_bytes(content)
        said = cli(*again, "--resume")
        assert (said.code, "damaged" in said.err) == (2, True), said.err
    path.write_bytes(before[path.name][:-20])
    assert "damaged" in cli(*again, "--resume").err


def test_a_full_disk_leaves_the_checkpoint_before_it(cli, files):
    assert cli(*TRAIN, "--out", "out").code == 0
    before = written("out")
    arguments = json.dumps([*TRAIN, "--epochs", "3", "--out", "out", "--resume"])
    code = (
        "import json, resource, signal, sys; from actconform.cli import main; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        f"sys.argv = ['actconform', *json.loads({arguments!r})]; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500)); main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "out/checkpoint.safetensors: File too large" in done.stderr
    assert written("out") == before
    assert sorted(path.name for path in Path("out").iterdir()) == sorted(FILES)
    assert cli(*TRAIN, "--epochs", "3", "--out", "out", "--resume").code == 0
    assert cli(*TRAIN, "--epochs", "3", "--out", "whole").code == 0
    assert written("out") == written("whole")


def test_logits_that_are_taken_for_probabilities_are_noted(cli, files):
    command = [word if word != LOSS else LOSS.removesuffix("-from-logits") for word in TRAIN]
    result = cli(*command, "--epochs", "1")
    assert result.code == 0
    assert re.search(
        rf"^NOTE     output 'logits' is -\S+ to \S+ in the first batch, .*--loss {LOSS}$", result.out, re.MULTILINE
    )
    assert "NOTE" not in cli(*TRAIN, "--out", "other").out
