"""A user's torch module: run in any precision, differentiated, its weights told, and after every call as it was."""

from __future__ import annotations

import copy
import hashlib
import random
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import nn
from torch_networks import EXAMPLES, Functional, Keywords, Narrow, Noisy, Recurrent, Residual, Tied, drawn, made

from actconform import SourceError, Unsupported
from actconform.types.trained import RunMode
from actconform_torch import TorchBackend

if TYPE_CHECKING:
    from actconform import TrainedModel

NATIVE, WIDE, TRAINING = RunMode(), RunMode("float64"), RunMode(training=True)
MODES = [
    NATIVE,
    WIDE,
    RunMode("bfloat16"),
    RunMode("autocast-bfloat16"),
    TRAINING,
    RunMode("float64", training=True),
]


def opened(module: nn.Module, example: Any = None) -> TrainedModel:
    return TorchBackend().adopt_trained(module, example)


def example_of(name: str) -> tuple[nn.Module, TrainedModel]:
    kind, example = EXAMPLES[name]
    module = made(kind)
    return module, opened(module, example)


def called_as_users_do(module: nn.Module, example: Any) -> Any:
    with torch.no_grad():
        if isinstance(example, dict):
            return module(**example)
        return module(*example) if isinstance(example, tuple) else module(example)


def state_of(module: nn.Module) -> str:
    """Return a digest of all that a call could change."""
    digest = hashlib.sha256()
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tensor.requires_grad} {tensor.grad}".encode())
        digest.update(tensor.detach().numpy().tobytes())
    for path, part in module.named_modules():
        digest.update(f"{path} {part.training} {len(part._forward_hooks)} {len(part._forward_pre_hooks)}".encode())
        plain = {name: value for name, value in vars(part).items() if isinstance(value, torch.Tensor | list | int)}
        digest.update(repr(sorted(plain.items())).encode())
    digest.update(torch.get_rng_state().numpy().tobytes())
    digest.update(repr((random.getstate(), np.random.get_state()[1].tobytes())).encode())  # noqa: NPY002
    digest.update(f"{torch.get_default_dtype()} {torch.backends.mha.get_fastpath_enabled()} {torch.finfo}".encode())
    return digest.hexdigest()


@pytest.mark.parametrize("name", EXAMPLES)
def test_gives_what_the_module_gives_under_names(name):
    kind, example = EXAMPLES[name]
    module, model = example_of(name)
    outputs = model.run(model.about.example, NATIVE).outputs
    wanted = called_as_users_do(module, example)
    if isinstance(wanted, torch.Tensor):
        assert list(outputs) == ["output"]
        np.testing.assert_array_equal(outputs["output"], wanted)
    assert kind is not Recurrent or list(outputs) == ["output_0", "output_1.0", "output_1.1", "output_2"]
    assert kind is not Keywords or list(outputs) == ["logits", "states.0", "states.1.last"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_float64_is_the_module_in_float64(name):
    if name == "narrow":
        pytest.skip("says float32 itself: a test of its own")
    kind, example = EXAMPLES[name]
    _, model = example_of(name)
    wide = made(kind).double()
    example = torch.utils._pytree.tree_map(
        lambda leaf: leaf.double() if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf, example
    )
    wanted = [leaf for leaf in torch.utils._pytree.tree_leaves(called_as_users_do(wide, example)) if leaf is not None]
    outputs = model.run(model.about.example, WIDE).outputs
    for output, leaf in zip(outputs.values(), wanted, strict=True):
        assert output.dtype == np.float64
        np.testing.assert_allclose(output, leaf.numpy(), rtol=1e-13, atol=1e-13)


def test_what_forward_narrows_stays_wide_in_float64():
    module = made(Narrow)
    x = drawn(3, 4)
    model = opened(module, x)
    outputs = model.run(model.about.example, WIDE).outputs
    weight, bias = (tensor.detach().numpy().astype(np.float64) for tensor in module.layer.parameters())
    # The constants are what the module has: a third in float32; and a number that forward writes, which float64 has.
    y = x.numpy().astype(np.float64) @ weight.T + bias + np.float64(np.float32(1 / 3)) + 1 / 7
    wanted = np.exp(y) / np.exp(y).sum(-1, keepdims=True)
    np.testing.assert_allclose(outputs["output_0"], wanted, rtol=1e-14)
    # What a model asks of its format is said of the one that it was trained in: masks are those of the graph.
    np.testing.assert_array_equal(outputs["output_1"], np.full(4, np.finfo(np.float32).min, np.float64))


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("layers", [False, True])
def test_a_call_leaves_no_trace(mode, layers):
    module = made(Noisy)
    model = opened(module, drawn(3, 4))
    before = state_of(module)
    model.run(model.about.example, mode, layers=layers)
    assert state_of(module) == before
    model.gradients(model.about.example, {"output": np.ones((3, 4))}, mode)
    assert state_of(module) == before


def test_a_call_that_fails_leaves_no_trace():
    module = made(Noisy).train()
    model = opened(module)
    before = state_of(module)
    for mode in MODES:
        with pytest.raises(SourceError):
            model.run({"x": np.ones((3, 7), np.float32)}, mode, layers=True)
    assert state_of(module) == before


def test_dropout_that_is_left_on_shows_when_it_runs_again():
    model = opened(made(Noisy), drawn(30, 4))
    first, second = (model.run(model.about.example, NATIVE).outputs["output"] for _ in range(2))
    assert not np.array_equal(first, second)


def test_training_mode_draws_the_same_every_time_and_uses_the_batch():
    module = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5)).eval()
    model = opened(module, drawn(30, 4))
    first, second = (model.run(model.about.example, TRAINING).outputs["output"] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    normed = (drawn(30, 4) - drawn(30, 4).mean(0)) / torch.sqrt(drawn(30, 4).var(0, correction=0) + 1e-5)
    kept = first != 0
    assert 0.2 < kept.mean() < 0.8
    np.testing.assert_allclose(first[kept], 2 * normed.numpy()[kept], rtol=1e-5)


def test_a_module_left_in_training_mode_is_run_as_in_inference_and_a_note_says_so():
    module = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).train()
    model = opened(module, drawn(2, 3))
    assert any("training mode" in note for note in model.about.notes)
    output = model.run(model.about.example, NATIVE).outputs["output"]
    np.testing.assert_array_equal(output, module[0](drawn(2, 3)).detach())
    assert module.training
    assert module[1].training


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_low_precision_rounds_weights_and_inputs(precision):
    module = made(Functional)
    model = opened(module, drawn(3, 6))
    dtype = getattr(torch, precision)
    outputs = model.run(model.about.example, RunMode(precision)).outputs["output"]
    wanted = copy.deepcopy(module).to(dtype)(drawn(3, 6).to(dtype)).detach()
    assert outputs.dtype == (np.float16 if precision == "float16" else ml_dtypes.bfloat16)
    np.testing.assert_array_equal(outputs.astype(np.float32), wanted.float().numpy())


def test_autocast_is_the_frameworks():
    module = made(Functional)
    model = opened(module, drawn(3, 6))
    outputs = model.run(model.about.example, RunMode("autocast-bfloat16")).outputs["output"]
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        wanted = module(drawn(3, 6))
    np.testing.assert_array_equal(outputs.astype(np.float32), wanted.float().numpy())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_keep_the_dtype_in_which_they_are_stored(dtype):
    module = made(Functional).to(dtype)
    model = opened(module)
    name = str(dtype).removeprefix("torch.")
    assert {array.dtype.name for array in model.parameters().values()} == {name}
    assert {spec.dtype for spec in model.about.parameters} == {name}
    outputs = model.run({"x": np.ones((3, 6), np.float32)}, NATIVE).outputs
    assert outputs["output"].dtype.name == name


def test_parameters_have_every_name_of_a_tied_weight_buffers_and_plain_tensors():
    tied, noisy = opened(made(Tied)).parameters(), opened(made(Noisy)).parameters()
    assert sorted(tied) == ["block.bias", "block.weight", "embed.weight", "head.weight"]
    np.testing.assert_array_equal(tied["embed.weight"], tied["head.weight"])
    assert {"norm.running_mean", "norm.num_batches_tracked", "count", "last"} <= set(noisy)


@pytest.mark.parametrize("name", ["functional", "recurrent", "u-net", "tied", "attention"])
def test_gradients_are_those_of_finite_differences(name):
    _, model = example_of(name)
    inputs = {
        key: array.astype(np.float64) if array.dtype.kind == "f" else array
        for key, array in model.about.example.items()
    }
    outputs = model.run(inputs, WIDE).outputs
    rng = np.random.default_rng(3)
    cotangents = {key: rng.standard_normal(array.shape) for key, array in outputs.items()}
    gradients = model.gradients(inputs, cotangents, WIDE)
    floats = [key for key, array in inputs.items() if array.dtype.kind == "f"]
    assert set(gradients) == {f"d_{key}" for key in (*floats, *dict(opened_parameters(name)))}
    for key in floats:
        direction = rng.standard_normal(inputs[key].shape)
        sides = [
            sum(
                float((cotangents[each] * array).sum())
                for each, array in model.run({**inputs, key: inputs[key] + step * direction}, WIDE).outputs.items()
            )
            for step in (1e-6, -1e-6)
        ]
        assert float((gradients[f"d_{key}"] * direction).sum()) == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-6)


def opened_parameters(name: str) -> Any:
    return made(EXAMPLES[name][0]).named_parameters(remove_duplicate=False)


def test_frozen_parameters_have_gradients_too_and_stay_frozen():
    module = made(Functional).requires_grad_(False)
    model = opened(module)
    gradients = model.gradients({"x": np.ones((3, 6), np.float32)}, {"output": np.ones((3, 2), np.float32)}, NATIVE)
    assert set(gradients) == {"d_x", "d_first", "d_second"}
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_what_is_computed_without_gradients_says_so():
    module = nn.Linear(3, 3)
    module.forward = torch.no_grad()(module.forward)  # type: ignore[method-assign]
    with pytest.raises(Unsupported, match="no gradient passes through forward to output"):
        opened(module).gradients(
            {"input": np.ones((2, 3), np.float32)}, {"output": np.ones((2, 3), np.float32)}, NATIVE
        )


def test_a_model_without_weights_runs():
    class Nothing(nn.Module):
        def forward(self, x, y):
            return x + y

    model = opened(Nothing())
    assert model.about.about == "Nothing (torch.nn.Module), 0 weights"
    assert [spec.name for spec in model.about.inputs] == ["x", "y"]
    outputs = model.run({"x": np.ones(2, np.float32), "y": np.ones(2, np.float32)}, WIDE).outputs
    np.testing.assert_array_equal(outputs["output"], [2.0, 2.0])


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "no input 'x'"),
        ({"x": np.ones((2, 3, 5, 5), np.float32), "maks": np.ones(2)}, "no input 'maks'"),
        ({"x": np.ones((2, 3, 5, 5), np.int64)}, r"input 'x' is int64: the example has float32"),
        ({"x": np.ones((2, 7, 5, 5), np.float32)}, r"(?s)layer conv \(Conv2d\) raised RuntimeError: .*torch_networks.py, line \d+, in forward"),
    ],
    ids=["missing", "unknown", "dtype", "shape"],
)  # fmt: skip
def test_wrong_inputs_are_told(inputs, words):
    model = opened(made(Residual), drawn(2, 3, 5, 5))
    with pytest.raises(SourceError, match=words):
        model.run(inputs, NATIVE)


def computed(module, *inputs):
    """Return what a module gives without gradients: with them an LSTM takes another way on some processors."""
    with torch.no_grad():
        return module(*inputs)


def test_optional_inputs_that_are_not_given_keep_their_default():
    model = opened(made(Recurrent), EXAMPLES["recurrent"][1])
    x = EXAMPLES["recurrent"][1][0]
    outputs = model.run({"x": x.numpy()}, NATIVE).outputs
    np.testing.assert_array_equal(outputs["output_0"], computed(made(Recurrent), x)[0])


def test_a_structure_of_inputs_is_made_from_names_where_there_is_no_example():
    example = EXAMPLES["recurrent"][1]
    inputs = {"x": example[0].numpy(), "state.0": example[1][0].numpy(), "state.1": example[1][1].numpy()}
    outputs = opened(made(Recurrent)).run(inputs, NATIVE).outputs
    np.testing.assert_array_equal(outputs["output_0"], computed(made(Recurrent), *example)[0])


def test_a_model_of_one_dict_takes_it_whole():
    class OfDict(nn.Module):
        def forward(self, batch):
            return batch["a"] - batch["b"]

    model = opened(OfDict(), {"a": drawn(3), "b": drawn(3) * 2})
    assert [spec.name for spec in model.about.inputs] == ["batch.a", "batch.b"]
    np.testing.assert_array_equal(model.run(model.about.example, NATIVE).outputs["output"], -drawn(3).numpy())


def test_what_holds_no_tensor_is_told():
    class Number(nn.Module):
        def forward(self, x):
            return x.shape[0]

    with pytest.raises(SourceError, match="gives no tensor"):
        opened(Number()).run({"x": np.ones(2, np.float32)}, NATIVE)
