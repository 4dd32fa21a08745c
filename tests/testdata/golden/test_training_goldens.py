"""The goldens of experiments: what training begins with has their bits, and the truth of its first steps agrees to 1e-12."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from actconform.catalog.experiments import experiments
from actconform.catalog.models.zoo import PUBLISHED
from actconform.errors import GoldenError
from actconform.testdata.golden.mint import mint
from actconform.testdata.golden.store import Golden, golden_dir, load, read_manifest
from actconform.testdata.golden.training_goldens import (
    GOLDEN_STEPS,
    LOSSES,
    NORMS,
    check_initial_state,
    experiment_golden,
    verify_experiment,
)
from actconform.testdata.golden.verify import verify_all
from actconform.testdata.training_tasks import training_task

EXPERIMENTS = {experiment.name: experiment for experiment in experiments()}
SMALL = [name for name in EXPERIMENTS if PUBLISHED not in name]
RELU, LARGE = EXPERIMENTS["noise-relu"], EXPERIMENTS["noise-relu@published"]
KERNEL = "dense1.kernel"


def committed(name: str) -> Golden:
    return load(golden_dir(), read_manifest(golden_dir()), name)


def moved(golden: Golden, name: str, place: int, factor: float) -> Golden:
    """Return the golden with one number multiplied."""
    tensors = {key: array.copy() for key, array in golden.tensors.items()}
    tensors[name][place] *= tensors[name].dtype.type(factor)
    return msgspec.structs.replace(golden, tensors=tensors)


@pytest.mark.parametrize("name", SMALL)
def test_an_experiment_has_its_state_and_the_truth_of_its_first_steps(name: str):
    experiment, golden = EXPERIMENTS[name], committed(name)
    assert verify_experiment(experiment, golden) <= 1e-12
    steps = min(GOLDEN_STEPS, experiment.steps * experiment.epochs)
    assert golden.tensors[LOSSES].size == golden.tensors[NORMS].size == steps
    state = training_task(experiment, keep=0).state
    stored = dict(golden.split())["training"]
    assert all(np.array_equal(stored[key], array) for key, array in state.items())


def test_the_first_loss_is_the_models_own():
    (first, *_), task = committed("noise-relu").tensors[LOSSES], training_task(RELU, keep=0)
    batch = task.batch(0)
    hidden = batch["x"].astype(np.float64)
    for layer in ("dense1", "dense2", "dense3", "dense4", "dense5"):
        hidden = np.maximum(hidden @ task.state[f"{layer}.kernel"] + task.state[f"{layer}.bias"], 0.0)
    y = hidden @ task.state["head.kernel"] + task.state["head.bias"]
    assert first == pytest.approx(np.mean((y - batch["target"]) ** 2), rel=1e-12)


def test_of_published_sizes_a_sample_of_the_state_is_kept_alone():
    golden = committed(LARGE.name)
    assert not golden.tensors.keys() & {LOSSES, NORMS}
    assert max(array.size for array in golden.tensors.values()) <= 257
    assert verify_experiment(LARGE, golden) == 0.0


@pytest.mark.parametrize(("name", "step"), [(LOSSES, 7), (NORMS, 0)])
def test_a_number_of_the_path_that_moved_is_named_with_its_step(name: str, step: int):
    largest = np.abs(committed(RELU.name).tensors[name]).max() / abs(committed(RELU.name).tensors[name][step])
    verify_experiment(RELU, moved(committed(RELU.name), name, step, 1.0 + 1e-13 * largest))
    with pytest.raises(GoldenError, match=rf"noise-relu: {name} of step {step + 1} is .*, the golden holds"):
        verify_experiment(RELU, moved(committed(RELU.name), name, step, 1.0 + 1e-11 * largest))


@pytest.mark.parametrize("experiment", [RELU, LARGE], ids=lambda experiment: experiment.name)
def test_another_bit_of_the_initial_state_is_named(experiment):
    golden, task = committed(experiment.name), training_task(experiment, keep=0)
    check_initial_state(task, golden)
    ulp = 1.0 + 2.0 ** -(23 if experiment is RELU else 52)
    with pytest.raises(GoldenError, match=r"the stored dense1\.kernel are not what training begins with"):
        check_initial_state(task, moved(golden, KERNEL, 5, ulp))


def test_a_golden_of_other_parameters_or_fewer_steps_is_refused():
    golden = committed(RELU.name)
    fewer = {name: array for name, array in golden.tensors.items() if name != KERNEL}
    with pytest.raises(GoldenError, match=r"other parameters than the experiment \(dense1\.kernel\)"):
        verify_experiment(RELU, msgspec.structs.replace(golden, tensors=fewer))
    short = golden.tensors | {LOSSES: golden.tensors[LOSSES][:5]}
    with pytest.raises(GoldenError, match="the golden has 5 losses, expected 20"):
        verify_experiment(RELU, msgspec.structs.replace(golden, tensors=short))


def test_the_path_has_the_learning_rate_of_its_experiment():
    faster = msgspec.structs.replace(
        RELU, optimizer=msgspec.structs.replace(RELU.optimizer, learning_rate=RELU.optimizer.learning_rate * 1.5)
    )
    losses, others = (experiment_golden(each).tensors[LOSSES] for each in (RELU, faster))
    assert losses[0] == others[0]
    assert math.isfinite(losses[1])
    assert losses[1] != others[1]


def test_minted_goldens_verify_and_keep_the_bytes_of_what_did_not_move(tmp_path):
    pytest.importorskip("flint", reason='minting needs python-flint: pip install "actconform[golden]"')
    subjects = [RELU, LARGE]
    mint(subjects, tmp_path, lambda _: None)
    assert verify_all(tmp_path, read_manifest(tmp_path), subjects, EXPERIMENTS) == []
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.npy")}
    mint(subjects, tmp_path, lambda _: None)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.npy")} == before
    (tmp_path / RELU.name / f"{LOSSES}.npy").unlink()
    (problem,) = verify_all(tmp_path, read_manifest(tmp_path), subjects, EXPERIMENTS)
    assert "noise-relu/losses.npy: missing golden" in problem
