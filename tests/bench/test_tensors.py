"""The tensors of a trial, for every kernel of the catalog: they fit its definition."""

from __future__ import annotations

import numpy as np
import pytest

from actconform.bench.available_memory import estimate, refuse_what_does_not_fit
from actconform.bench.tensors import elements_and_bytes, generate_tensors, output_shape, shapes
from actconform.bench.workloads import Workload
from actconform.errors import UsageError
from actconform.machine.memory import available_bytes
from actconform.oracle import truth
from actconform.plugin.loader import load_plugins
from actconform.types.model import LOSS

CATALOG = load_plugins()
MLP = CATALOG.models["mlp-relu"]


@pytest.mark.parametrize("size", [1, 7, 1000, 4096])
@pytest.mark.parametrize("name", CATALOG.kernels)
def test_every_kernel_takes_its_tensors_and_gives_y_of_the_shape(name, size):
    kernel = CATALOG.kernels[name]
    direction = "forward+backward" if kernel.differentiable else "forward"
    inputs, cotangents = generate_tensors(kernel, Workload(name, direction, size), constants=False)
    y = truth(kernel, inputs)["y"]
    assert np.shape(y) == output_shape(kernel, shapes(kernel, size))
    assert {array.dtype for array in inputs.values()} == {np.dtype(np.float32)}
    assert size <= inputs["x"].size <= size + 1024
    if cotangents is not None:
        assert cotangents["y"].shape == np.shape(y)


def test_bytes_are_of_inputs_and_results_once():
    relu, softmax, prelu = (CATALOG.kernels[name] for name in ("relu", "softmax", "prelu"))
    assert elements_and_bytes(relu, Workload("relu", "forward", 1000)) == (1000, 8000)
    assert elements_and_bytes(relu, Workload("relu", "forward+backward", 1000)) == (1000, 12000)
    assert elements_and_bytes(softmax, Workload("softmax", "forward", 1 << 20)) == (1 << 20, 8 << 20)
    assert elements_and_bytes(prelu, Workload("prelu", "forward", 2048)) == (2048, 4 * (2048 + 1024 + 2048))
    glu, argmax = CATALOG.kernels["glu"], CATALOG.kernels["argmax"]
    assert elements_and_bytes(glu, Workload("glu", "forward", 2048)) == (2048, 4 * (2048 + 1024))
    assert elements_and_bytes(argmax, Workload("argmax", "forward", 2048)) == (2048, 4 * 2048 + 8 * 2)


def test_numbers_are_the_same_each_time_and_of_ordinary_size():
    workload = Workload("relu", "forward", 1 << 16)
    (first, _), (second, _) = (generate_tensors(CATALOG.kernels["relu"], workload, constants=False) for _ in range(2))
    assert np.array_equal(first["x"], second["x"])
    assert float(first["x"].std()) == pytest.approx(2.0, rel=0.02)


def test_a_model_has_the_batch_of_the_trial():
    inputs, cotangents = generate_tensors(MLP, Workload("mlp-relu", "forward+backward", 5), constants=False)
    assert inputs["x"].shape == (5, 20)
    assert inputs["dense1.kernel"].shape == (20, 16)
    assert cotangents is not None
    assert cotangents[LOSS].shape == ()
    folded, none = generate_tensors(MLP, Workload("mlp-relu", "forward", 5), constants=True)
    assert (set(folded), none) == ({"x"}, None)


def test_the_estimate_counts_all_that_is_held():
    relu = CATALOG.kernels["relu"]
    assert estimate(relu, Workload("relu", "forward", 1000), 1) == 4 * 2 * 1000 * 3
    assert estimate(relu, Workload("relu", "forward+backward", 1000), 5) == 5 * 4 * 4 * 1000 * 3
    layers = 2 * (16 + 12 + 16 + 12 + 8) + 1 + 1  # head, loss
    assert estimate(MLP, Workload("mlp-relu", "forward", 10), 1) == 4 * 3 * (10 * (20 + 1 + layers) + MLP.size)


def test_what_does_not_fit_is_refused_with_the_estimate():
    relu, workload = CATALOG.kernels["relu"], Workload("relu", "forward", 1 << 30)
    with pytest.raises(
        UsageError, match=r"relu forward 1073741824: 7 programs .* about 168 GiB, and 16 GiB are available"
    ):
        refuse_what_does_not_fit(relu, workload, 7, 16 << 30)
    refuse_what_does_not_fit(relu, workload, 7, 200 << 30)
    refuse_what_does_not_fit(relu, workload, 7, 0)  # unknown
    assert available_bytes() > 1 << 20
