"""The small reference models in the frameworks against the float64 truth: every layer, value, loss and gradient."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from kernel_truth import bits

from actconform.catalog.models.zoo import PUBLISHED, networks
from actconform.oracle.layers.model import gradients, values
from actconform.testdata.model_tensors import draw_inputs, draw_parameters

MODELS = {model.name: model for model in networks() if PUBLISHED not in model.name}
# Of the greatest magnitude of a tensor, by framework and dtype; JAX has no float64 here.
LIMITS = {
    ("keras", np.float32): 1e-4,
    ("keras", np.float64): 1e-10,
    ("torch", np.float32): 1e-5,
    ("torch", np.float64): 1e-10,
    ("jax", np.float32): 2e-5,
}
OF_FLOAT32 = (
    "image-windows",  # TensorFlow resizes in float32
    "attention-softmax",
    "attention-block",
    "masked-attention",
)  # Keras takes the softmax of attention in float32
LEAST = {"keras": 0.01, "torch": 0.1, "jax": 0.1}  # where all of a tensor is smaller, its error is one of this
SOFTMAX_OF_ONE = "image-cnn-softmax1"  # it is 1; where 0 is wanted the definition clips it


def computed_by(framework, model):
    """Return the model that the framework computes: Keras takes the logits of a softmax for those of a sigmoid."""
    if (framework, model.name) != ("keras", SOFTMAX_OF_ONE):
        return model
    loss = msgspec.structs.replace(
        model.layer("loss"), kind="binary-cross-entropy-from-logits", inputs=("dense2", "target")
    )
    return msgspec.structs.replace(model, layers=(*model.layers[:-1], loss))


def truth_of(framework, model, tensors):
    """Return the values of the layers, and the gradients."""
    model = computed_by(framework, model)
    layers = values(model, tensors)
    slopes = {f"d_{name}": slope for name, slope in gradients(model, tensors, layers).items()}
    if (framework, model.name) == ("torch", SOFTMAX_OF_ONE):  # torch.nn.BCELoss bounds the logarithm at -100
        assert np.all(layers["head"] == 1)
        layers["loss"] = np.asarray(100.0 * np.mean(1 - tensors["target"].astype(np.float64)))
    return layers, slopes


@pytest.mark.filterwarnings("ignore:You are using a softmax:UserWarning")
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize(("framework", "dtype"), LIMITS, ids=lambda value: getattr(value, "__name__", value))
def test_layers_and_gradients_agree_with_the_truth(backend_of, framework, dtype, model):
    limit = LIMITS[framework, dtype]
    if (framework, dtype) == ("keras", np.float64) and model.name in OF_FLOAT32:
        limit = 1e-6
    drawn = draw_inputs(model) | draw_parameters(model)
    tensors = {name: array.astype(dtype) for name, array in drawn.items()}
    before = bits(tensors)
    program = backend_of(framework).build_model(model, "f64" if framework == "keras" and dtype is np.float64 else "f32")
    layers, slopes = truth_of(framework, model, tensors)
    outputs = {"y": layers[model.output], "loss": layers["loss"]}
    for computed, wanted in (
        (program.intermediates(tensors), layers),
        (program.forward(tensors), outputs),
        (program.vjp(tensors, {"loss": np.ones((), dtype)}), slopes),
    ):
        assert set(computed) == set(wanted)
        for name, truth in wanted.items():
            assert (computed[name].shape, computed[name].dtype) == (truth.shape, dtype), name
            reach = limit * max(float(np.abs(truth).max()), LEAST[framework])
            np.testing.assert_allclose(computed[name].astype(np.float64), truth, rtol=0, atol=reach, err_msg=name)
    assert bits(tensors) == before
