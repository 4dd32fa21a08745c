"""A user's JAX model opened: what it says of itself, outputs in every precision, layers by name, gradients, and no trace of a call."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from actconform import SourceError, Unsupported
from actconform.types.trained import RunMode, TrainedSource
from actconform_jax import JaxBackend

jax = pytest.importorskip("jax")
nnx = pytest.importorskip("flax.nnx")
pytest.importorskip("equinox")
jax_networks = pytest.importorskip("jax_networks")

FLOAT64 = RunMode("float64")


def opened(name):
    return JaxBackend().open_trained(TrainedSource("factory", f"jax_networks:{name}", str(Path(__file__).parent)))


def names(run):
    return [layer.name for layer in run.layers]


def test_a_model_says_what_it_is_and_takes():
    about = opened("mlp").about
    assert about.about == "Mlp (flax.nnx), 99 weights"
    assert [(spec.name, spec.dtype, spec.dims) for spec in about.inputs] == [("x", "float32", (None, None))]
    assert {spec.name for spec in about.parameters} == {
        "first.kernel", "first.bias", "norm.scale", "norm.bias", "last.kernel", "last.bias"
    }  # fmt: skip
    assert about.precisions == ("native", "float64", "float16", "bfloat16")
    assert (about.trainable, about.differentiable, about.exporters, about.notes) == (True, True, ("jax2onnx",), ())
    (note,) = opened("conv").about.notes
    assert "left in training mode" in note


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("mlp", ["first", "norm", ":gelu", "last", ""]),
        ("conv", ["conv", "bn", ":relu", "depthwise", ":reduce_window_max", ":mean", "head", ""]),
        ("recurrent", [":scan", "out", ""]),
        ("plain", [":dot_general", ":add", ":tanh", ""]),
    ],
)
def test_layers_are_modules_and_the_functions_between_them(name, layers):
    model = opened(name)
    run = model.run(model.about.example, FLOAT64, layers=True)
    assert names(run) == layers
    whole = run.layers[-1]
    np.testing.assert_array_equal(run.tensors[whole.outputs[0]], run.outputs["output"])
    assert all(place < output for layer in run.layers for place in layer.inputs for output in layer.outputs)


def test_layers_within_layers_and_their_weights_are_told():
    model = opened("attention")
    run = model.run(model.about.example, FLOAT64, layers=True)
    layers = {layer.name: layer for layer in run.layers}
    assert {"layers.0", "layers.1.norm", "layers.1.attention", "layers.1.attention.query", "layers.0:silu"} <= set(
        layers
    )
    assert "layers.1.attention:softmax" in layers
    assert set(layers["layers.0.norm"].parameters) == {"layers.0.norm.scale", "layers.0.norm.bias"}
    assert layers["layers.0.norm"].outputs[0] in layers["layers.0.attention"].inputs
    assert names(run).index("layers.0.attention.query") < names(run).index("layers.0.attention")
    assert names(run).index("layers.0.attention") < names(run).index("layers.0")
    assert list(run.outputs) == ["hidden", "pooled"]


def test_what_a_function_reads_are_its_weights():
    model = opened("plain")
    assert set(model.parameters()) == {"dense.kernel", "dense.bias"}
    layers = {layer.name: layer for layer in model.run(model.about.example, RunMode(), layers=True).layers}
    assert layers[":dot_general"].parameters == ("dense.kernel",)
    assert layers[":add"].parameters == ("dense.bias",)


def test_float64_computes_the_trained_weights_widened():
    model = opened("plain")
    x, weights = model.about.example["x"].astype(np.float64), model.parameters()
    y = model.run({"x": x}, FLOAT64).outputs["output"]
    assert y.dtype == np.float64
    wanted = np.tanh(x @ weights["dense.kernel"].astype(np.float64) + weights["dense.bias"].astype(np.float64))
    np.testing.assert_allclose(y, wanted, rtol=1e-14)
    native = model.run({"x": x}, RunMode()).outputs["output"]
    assert native.dtype == np.float32
    assert 0 < abs(native - wanted).max() < 1e-5
    assert not jax.config.jax_enable_x64


def test_what_a_model_narrows_itself_stays_wide_in_float64():
    def function(x):
        def step(total, row):
            return total + jax.numpy.asarray(row, jax.numpy.bfloat16).astype(jax.numpy.float32) / 3, None

        y = jax.lax.scan(step, jax.numpy.zeros(4, jax.numpy.float32), x)[0]
        return jax.jit(lambda y: jax.nn.softmax(y.astype(jax.numpy.float16)).astype(jax.numpy.float32))(y)

    model = JaxBackend().adopt_trained(function, (jax_networks.drawn(5, 4),))
    x = model.about.example["x"].astype(np.float64)
    total = np.exp((x / 3).sum(0))
    np.testing.assert_allclose(model.run({"x": x}, FLOAT64).outputs["output"], total / total.sum(), rtol=1e-13)
    assert abs(model.run({"x": x}, RunMode()).outputs["output"] - total / total.sum()).max() > 1e-5


def test_a_narrower_format_of_the_models_own_is_noted():
    layer = nnx.Linear(4, 3, dtype=jax.numpy.bfloat16, rngs=nnx.Rngs(1))
    (note,) = JaxBackend().adopt_trained(layer, (jax_networks.drawn(2, 4),)).about.notes
    assert note.startswith("parts of it are computed in bfloat16")


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_narrow_formats_round_weights_and_inputs(precision):
    model = opened("mlp")
    output = model.run(model.about.example, RunMode(precision)).outputs["output"]
    assert output.dtype.name == precision
    exact = model.run(model.about.example, FLOAT64).outputs["output"]
    assert 1e-5 < abs(output.astype(np.float64) - exact).max() < 0.1


def test_gradients_are_those_of_the_function():
    model = opened("plain")
    x, weights = model.about.example["x"].astype(np.float64), model.parameters()
    gradients = model.gradients({"x": x}, {"output": np.ones((3, 4))}, FLOAT64)
    y = np.tanh(x @ weights["dense.kernel"].astype(np.float64) + weights["dense.bias"])
    inner = 1 - y**2
    assert set(gradients) == {"d_x", "d_dense.kernel", "d_dense.bias"}
    np.testing.assert_allclose(gradients["d_x"], inner @ weights["dense.kernel"].T.astype(np.float64), rtol=1e-12)
    np.testing.assert_allclose(gradients["d_dense.kernel"], x.T @ inner, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(gradients["d_dense.bias"], inner.sum(0), rtol=1e-12)
    with pytest.raises(SourceError, match="no output 'z': the model gives output"):
        model.gradients({"x": x}, {"z": np.ones(1)}, FLOAT64)


def test_a_rule_of_the_users_own_is_the_gradient():
    @jax.custom_vjp
    def function(x):
        return x * 2

    function.defvjp(lambda x: (function(x), None), lambda _, given: (given * 7,))
    model = JaxBackend().adopt_trained(function, (jax_networks.drawn(3),))
    for mode in (RunMode(), FLOAT64):
        assert (model.gradients(model.about.example, {"output": np.ones(3)}, mode)["d_x"] == 7).all()


def test_training_mode_leaves_no_trace():
    module, _ = jax_networks.conv()
    before = jax.tree.map(np.array, nnx.state(module))
    x = jax_networks.drawn(8, 6, 6, 3)
    model = JaxBackend().adopt_trained(module, (x,))
    training = [model.run({"x": np.array(x)}, RunMode(training=True)).outputs["output"] for _ in range(2)]
    np.testing.assert_array_equal(*training)
    assert abs(training[0] - model.run({"x": np.array(x)}, RunMode()).outputs["output"]).max() > 1e-3
    model.run({"x": np.array(x)}, RunMode(training=True), layers=True)
    after = jax.tree.map(np.array, nnx.state(module))
    assert jax.tree.all(jax.tree.map(np.array_equal, before, after))
    assert module.bn.use_running_average is False
    assert nnx.Linear.__call__.__qualname__ == "Linear.__call__"
    assert not hasattr(nnx.Linear.__call__, "__wrapped__")


def test_a_live_model_computes_with_its_weights_of_the_moment():
    module, (x,) = jax_networks.mlp()
    model = JaxBackend().adopt_trained((module, (x,)), None)
    before = model.run(model.about.example, RunMode()).outputs["output"]
    module.last.bias[...] = module.last.bias[...] + 1
    np.testing.assert_allclose(model.run(model.about.example, RunMode()).outputs["output"], before + 1, rtol=1e-5)


def test_a_function_that_holds_its_weights_shows_them_by_number():
    kernel = jax_networks.drawn(6, 4)
    model = JaxBackend().adopt_trained(lambda x: x @ kernel, (jax_networks.drawn(3, 6),))
    np.testing.assert_array_equal(model.parameters()["constant_0"], np.array(kernel))
    assert "d_constant_0" in model.gradients(model.about.example, {"output": np.ones((3, 4))}, RunMode())


def test_a_transformed_module_keeps_its_names():
    module, _ = jax_networks.recurrent()
    model = JaxBackend().adopt_trained(jax.vmap(module), (jax_networks.drawn(2, 6, 3),))
    assert set(model.parameters()) == set(JaxBackend().adopt_trained(module, None).parameters())
    layers = {layer.name: layer for layer in model.run(model.about.example, RunMode(), layers=True).layers}
    assert list(layers) == [":scan", "out", ""]
    assert set(layers["out"].parameters) == {"out.weight", "out.bias"}


@pytest.mark.parametrize("name", ["recurrent", "flax_linen"])
def test_other_kinds_of_models_show_their_weights(name):
    model = opened(name)
    expected = {
        "recurrent": {"cell.weight_ih", "cell.weight_hh", "cell.bias", "cell.bias_n", "out.weight", "out.bias"},
        "flax_linen": {f"params.Dense_{place}.{part}" for place in (0, 1) for part in ("kernel", "bias")},
    }
    assert set(model.parameters()) == expected[name]
    exact = model.run(model.about.example, FLOAT64).outputs["output"]
    np.testing.assert_allclose(model.run(model.about.example, RunMode()).outputs["output"], exact, rtol=1e-4, atol=1e-5)


def test_inputs_are_named_and_what_is_no_array_is_handed_on():
    def function(pair, *, scale, flags=None):
        return {"sum": pair["a"] + pair["b"][0] * scale, "flag": jax.numpy.float32(flags["on"])}

    example = {"pair": {"a": np.ones(2), "b": (np.ones(2),)}, "scale": 3.0, "flags": {"on": True}}
    model = JaxBackend().adopt_trained(function, example)
    assert [spec.name for spec in model.about.inputs] == ["pair.a", "pair.b.0"]
    run = model.run({"pair.a": np.float32([1, 2]), "pair.b.0": np.float32([10, 20])}, RunMode())
    np.testing.assert_array_equal(run.outputs["sum"], [31, 62])
    for inputs, words in (
        ({"pair.a": np.ones(2)}, "no input 'pair.b.0'"),
        ({**model.about.example, "c": np.ones(2)}, "takes no input 'c'"),
    ):
        with pytest.raises(SourceError, match=words):
            model.run(inputs, RunMode())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("raises", r"jax_networks:raises raised KeyError: 'missing'\n.*line \d+, in raises"),
        ("needs", r"jax_networks:needs needs arguments \(path\)"),
        ("number", r"jax_networks:number gives an int: wanted a flax.nnx or equinox Module"),
        ("weights_alone", r"gives weights alone, a dict of 1: bind them to the function"),
        ("of_class", r"gives the class Mlp, not a model: call it"),
        ("unbound", r"a module of flax.linen without its variables: give functools.partial\(model.apply, variables\)"),
        ("mpl", r"jax_networks has no 'mpl'; did you mean mlp"),
    ],
)
def test_a_factory_that_is_none_is_told(name, words):
    with pytest.raises(SourceError, match=words):
        opened(name)


def test_models_of_other_frameworks_are_left_to_them():
    torch = pytest.importorskip("torch")
    with pytest.raises(Unsupported, match=r"gives a torch module \(a torch.nn.modules.linear.Linear\), not JAX's"):
        JaxBackend().adopt_trained(torch.nn.Linear(2, 2), None)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("untraceable", r"is no function that JAX can trace .*\n.*, in <lambda>"),
        ("unfitting", r"layer first \(Linear\) raised TypeError: dot_general"),
    ],
)
def test_a_model_that_does_not_run_is_told_by_its_lines(name, words):
    model = opened(name)
    with pytest.raises(SourceError, match=words):
        model.run(model.about.example, RunMode())


def test_a_partial_function_that_needs_no_argument_but_its_weights_is_the_factory_itself():
    model = JaxBackend().adopt_trained(
        functools.partial(jax_networks.affine, jax_networks.weights()), jax_networks.drawn(3, 6)
    )
    assert [spec.name for spec in model.about.inputs] == ["x"]
