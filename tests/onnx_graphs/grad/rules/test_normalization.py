"""Gradients of the normalizations against torch's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator
from actconform.onnx.grad.reverse_mode import add_gradients

torch = pytest.importorskip("torch")
functional = torch.nn.functional

IMAGES = [(3, 4), (2, 3, 5), (2, 4, 3, 2), (1, 2, 2, 3, 2)]
EPSILONS = [2.0**-17, 2.0**-10, 0.5]  # as attributes they are float32


def normal(*shape):
    return np.random.default_rng(1).standard_normal(shape)


def vectors(n, count):
    rng = np.random.default_rng(2)
    return [rng.uniform(0.5, 2.0, n) for _ in range(count)]


@settings(max_examples=20, deadline=None)
@given(shape=st.sampled_from(IMAGES), epsilon=st.sampled_from(EPSILONS), free=st.sampled_from([(), (0,), (0, 2)]))
def test_batch_normalization_by_given_statistics(agrees, shape, epsilon, free):
    agrees(
        "BatchNormalization",
        [normal(*shape), *vectors(shape[1], 4)],
        by_formula(epsilon),
        free={0: free},
        epsilon=epsilon,
    )


def by_formula(epsilon):
    """Return batch normalization as it is defined: torch's own has no gradient to the given mean and variance."""

    def forward(x, scale, bias, mean, variance):
        scale, bias, mean, variance = (v.reshape(-1, *[1] * (x.ndim - 2)) for v in (scale, bias, mean, variance))
        return scale * (x - mean) / torch.sqrt(variance + epsilon) + bias

    return forward


@settings(max_examples=20, deadline=None)
@given(shape=st.sampled_from(IMAGES), epsilon=st.sampled_from(EPSILONS), free=st.sampled_from([(), (0,)]))
def test_batch_normalization_in_training(agrees, shape, epsilon, free):
    def forward(x, scale, bias, *_):
        return functional.batch_norm(x, None, None, scale, bias, training=True, eps=epsilon) + 0 * sum(
            v.sum() for v in _
        )

    inputs = [normal(*shape), *vectors(shape[1], 4)]
    agrees(
        "BatchNormalization",
        inputs,
        forward,
        outputs=3,
        free={0: free},
        training_mode=1,
        epsilon=epsilon,
        momentum=0.75,
    )


@pytest.mark.parametrize("shape", IMAGES, ids=str)
def test_batch_normalization_whose_running_statistics_are_used(agrees, shape):
    axes = [0, *range(2, len(shape))]

    def forward(x, scale, bias, mean, variance):
        y = functional.batch_norm(x, None, None, scale, bias, training=True, eps=0.5)
        return y, 0.75 * mean + 0.25 * x.mean(axes), 0.75 * variance + 0.25 * x.var(axes, correction=0)

    inputs = [normal(*shape), *vectors(shape[1], 4)]
    agrees("BatchNormalization", inputs, forward, training_mode=1, momentum=0.75, epsilon=0.5, runs=False)


@settings(max_examples=25, deadline=None)
@given(
    axis=st.sampled_from([1, 2, 3, -1, -2]),
    bias=st.booleans(),
    epsilon=st.sampled_from(EPSILONS),
    free=st.sampled_from([(), (0,), (0, 1)]),
)
def test_layer_normalization(agrees, axis, bias, epsilon, free):
    shape = (2, 3, 4, 2)
    kept = shape[axis:]

    def forward(x, scale, *bias):
        return functional.layer_norm(x, kept, scale, *bias, eps=epsilon)

    inputs = [normal(*shape), 1 + normal(*kept)] + [normal(*kept)] * bias
    agrees("LayerNormalization", inputs, forward, free={0: free}, axis=axis, epsilon=epsilon)


def test_layer_normalization_scaled_by_a_vector_over_several_axes(agrees):
    def forward(x, scale, bias):
        return functional.layer_norm(x, (3, 4), eps=0.5) * scale + bias

    agrees("LayerNormalization", [normal(2, 3, 4), normal(4), normal(1)], forward, axis=1, epsilon=0.5)


def test_layer_normalization_whose_statistics_are_used(agrees):
    def forward(x, scale):
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, correction=0)
        return functional.layer_norm(x, (4,), scale, eps=0.5), mean, 1 / torch.sqrt(variance + 0.5)

    agrees("LayerNormalization", [normal(2, 3, 4), normal(4)], forward, epsilon=0.5)


@settings(max_examples=15, deadline=None)
@given(shape=st.sampled_from(IMAGES[1:]), epsilon=st.sampled_from(EPSILONS), free=st.sampled_from([(), (0,), (0, 2)]))
def test_instance_normalization(agrees, shape, epsilon, free):
    def forward(x, scale, bias):
        return functional.instance_norm(x, weight=scale, bias=bias, eps=epsilon)

    agrees("InstanceNormalization", [normal(*shape), *vectors(shape[1], 2)], forward, free={0: free}, epsilon=epsilon)


@settings(max_examples=20, deadline=None)
@given(
    groups=st.sampled_from([1, 2, 4]),
    rest=st.sampled_from([(3,), (2, 3), (2, 1, 2)]),
    free=st.sampled_from([(), (0,), (0, 2)]),
    epsilon=st.sampled_from(EPSILONS),
)
def test_group_normalization(agrees, groups, rest, free, epsilon):
    def forward(x, scale, bias):
        return functional.group_norm(x, groups, scale, bias, epsilon)

    inputs = [normal(2, 4, *rest), *vectors(4, 2)]
    agrees("GroupNormalization", inputs, forward, free={0: free}, num_groups=groups, epsilon=epsilon)


@pytest.mark.parametrize("free", [(), (0,)], ids=["static", "batch"])
@pytest.mark.parametrize("axis", [-1, 1])
def test_rms_normalization(agrees, axis, free):
    kept = (2, 3, 4)[axis:]

    def forward(x, scale):
        return functional.rms_norm(x, kept, scale, 2.0**-10)

    inputs = [normal(2, 3, 4), normal(*kept)]
    agrees("RMSNormalization", inputs, forward, opset=23, free={0: free}, axis=axis, epsilon=2.0**-10)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("p", [1, 2])
def test_lp_normalization(agrees, p, axis):
    agrees("LpNormalization", [normal(2, 3, 4)], lambda x: functional.normalize(x, p, axis), p=p, axis=axis)


@pytest.mark.parametrize("axes", [[0, 2, 3], [0, 1, 2, 3], [-1]])
def test_mean_variance_normalization(agrees, axes):
    def forward(x):
        centred = x - x.mean(axes, keepdim=True)
        return centred / (torch.sqrt((centred**2).mean(axes, keepdim=True)) + 1e-9)

    agrees("MeanVarianceNormalization", [normal(2, 3, 2, 4)], forward, tolerance=1e-4, axes=axes)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_local_response_normalization(agrees, size):
    def forward(x):
        return functional.local_response_norm(x, size, 0.5, 0.75, 1.5)

    for free in ((0,), (0, 1, 2, 3)):
        agrees("LRN", [normal(2, 4, 3, 2)], forward, free={0: free}, size=size, alpha=0.5, beta=0.75, bias=1.5)


def test_response_normalization_over_more_channels_than_there_are(graph_of):
    """All five channels are near each of the five."""
    x, size = normal(2, 5, 3), 1_000_000_000
    model = graph_of("LRN", [x], [3], size=size, alpha=0.5 * size, beta=0.75, bias=1.5)
    got = CorrectlyRoundedEvaluator(add_gradients(model).SerializeToString(), rounding=False).forward(
        {"x0": x, "ct_y0": np.ones(x.shape)}
    )
    leaf = torch.tensor(x, requires_grad=True)
    y = leaf / (1.5 + 0.5 * (leaf * leaf).sum(1, keepdim=True)) ** 0.75
    y.sum().backward()
    np.testing.assert_allclose(got["y0"], y.detach(), atol=1e-8)  # alpha is a float32 there
    np.testing.assert_allclose(got["d_x0"], leaf.grad, atol=1e-8)


def test_response_normalization_of_many_channels_writes_no_matrix_of_them(graph_of):
    assert add_gradients(graph_of("LRN", [normal(1, 50_000, 1)], [3], size=5)).ByteSize() < 10_000


def test_float16_is_done_in_float32(graph_of):
    rng = np.random.default_rng(5)
    x = (30 + rng.standard_normal((4, 256))).astype(np.float16)  # whose variance has no digit left in float16
    scale, g = (rng.standard_normal(shape).astype(np.float16) for shape in ((256,), (4, 256)))
    model = graph_of(
        "LayerNormalization", [x.astype(float), scale.astype(float)], [2], element_type=TensorProto.FLOAT16
    )
    run = ReferenceEvaluator(add_gradients(model, ["x0", "x1"], keep_outputs=False)).run
    found = run(None, {"x0": x, "x1": scale, "ct_y0": g})

    wide = [torch.tensor(each.astype(np.float64), requires_grad=True) for each in (x, scale)]
    y = functional.layer_norm(wide[0], (256,), wide[1])
    for dx, truth in zip(found, torch.autograd.grad(y, wide, torch.tensor(g.astype(np.float64))), strict=True):
        assert dx.dtype == np.float16
        np.testing.assert_allclose(dx.astype(np.float64), truth.numpy(), rtol=2.0**-10, atol=2.0**-12)


def test_lp_normalization_of_a_zero_vector_has_gradient_zero(graph_of):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = add_gradients(graph_of("LpNormalization", [normal(2, 3)], [2], element_type=TensorProto.FLOAT), ["x0"])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.array([[0, 0, 0], [3, 0, 4]], np.float32)
    (dx,) = session.run(["d_x0"], {"x0": x, "ct_y0": np.ones((2, 3), np.float32)})
    np.testing.assert_allclose(dx, [[0, 0, 0], [0.032, 0.2, -0.024]], atol=1e-6)
