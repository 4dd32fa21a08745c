"""Gradients of graphs that tf2onnx exports of Keras models, against GradientTape and against an export of a GradientTape.

The models are built as published networks are, outside of the catalog. The tape computes in float64, graphs in float32,
where a gradient is a sum of n products, each passed through some twenty layers: errors grow as sqrt(n) 2^-24 with n up to
a few thousand, that is, to a few 1e-6 of a tensor's greatest element. A wrong term is off by 1e-2 or more.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
import pytest

from actconform.onnx.grad.reverse_mode import add_gradients
from actconform_keras.keras_module import keras_on

if TYPE_CHECKING:
    from collections.abc import Callable

tf = keras_on("tensorflow")
tf2onnx = pytest.importorskip("tf2onnx")
ort = pytest.importorskip("onnxruntime")

import keras  # noqa: E402  once TensorFlow is known to be there
from keras import layers  # noqa: E402

TOLERANCE = 1e-5
BATCH = 3


def normal_relu(x: Any, bound: float | None = None) -> Any:
    return layers.ReLU(bound)(layers.BatchNormalization()(x))


def residual(x: Any, channels: int, stride: int) -> Any:
    """The basic block of a ResNet, with a projection where the size changes."""
    y = normal_relu(layers.Conv2D(channels, 3, stride, padding="same", use_bias=False)(x))
    y = layers.BatchNormalization()(layers.Conv2D(channels, 3, padding="same", use_bias=False)(y))
    if stride > 1:
        x = layers.BatchNormalization()(layers.Conv2D(channels, 1, stride, use_bias=False)(x))
    return layers.ReLU()(layers.Add()([x, y]))


def resnet(x: Any) -> Any:
    y = normal_relu(layers.Conv2D(8, 7, 2, padding="same", use_bias=False)(x))
    y = layers.MaxPooling2D(3, 2, padding="same")(y)
    y = residual(residual(y, 8, 1), 16, 2)
    return layers.Dense(5)(layers.GlobalAveragePooling2D()(y))


def convolutions(x: Any, channels: int) -> Any:
    y = normal_relu(layers.Conv2D(channels, 3, padding="same")(x))
    return layers.Conv2D(channels, 3, padding="same", activation="relu")(y)


def unet(x: Any) -> Any:
    """Two levels: the inner one goes up by a transposed convolution, the outer one by the nearest neighbours."""
    wide = convolutions(x, 8)
    middle = convolutions(layers.MaxPooling2D(2)(wide), 8)
    deep = convolutions(layers.MaxPooling2D(2)(middle), 16)
    up = layers.Conv2DTranspose(8, 2, 2)(deep)
    middle = convolutions(layers.Concatenate()([middle, up]), 8)
    up = layers.UpSampling2D(2)(middle)
    return layers.Conv2D(2, 1)(convolutions(layers.Concatenate()([wide, up]), 8))


def inverted(x: Any, channels: int, stride: int) -> Any:
    """The inverted residual of MobileNetV2: widen, filter each channel by itself, narrow."""
    wide = x.shape[-1]
    y = normal_relu(layers.Conv2D(2 * wide, 1, use_bias=False)(x), 6.0)
    y = normal_relu(layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False)(y), 6.0)
    y = layers.BatchNormalization()(layers.Conv2D(channels, 1, use_bias=False)(y))
    return layers.Add()([x, y]) if stride == 1 and wide == channels else y


def mobilenet(x: Any) -> Any:
    y = normal_relu(layers.Conv2D(8, 3, 2, padding="same", use_bias=False)(x), 6.0)
    y = inverted(inverted(inverted(y, 8, 1), 12, 2), 12, 1)
    return layers.Dense(5)(layers.GlobalAveragePooling2D()(y))


class Positions(layers.Layer):
    def build(self, shape: Any) -> None:
        self.added = self.add_weight(shape=shape[1:])

    def call(self, x: Any) -> Any:
        return x + self.added


def encoder(x: Any) -> Any:
    """A vision transformer: patches with their positions, two encoder layers, the mean of what they give."""
    y = layers.Reshape((16, 16))(layers.Conv2D(16, 4, 4)(x))
    y = Positions()(y)
    for activation in (keras.activations.silu, lambda x: keras.activations.gelu(x, approximate=True)):
        normal = layers.LayerNormalization()(y)
        y = layers.Add()([y, layers.MultiHeadAttention(4, 4)(normal, normal)])
        inner = layers.Dense(32, activation=activation)(layers.LayerNormalization()(y))
        y = layers.Add()([y, layers.Dense(16)(inner)])
    return layers.Dense(5)(layers.GlobalAveragePooling1D()(layers.LayerNormalization()(y)))


MODELS = {"resnet": resnet, "unet": unet, "mobilenet": mobilenet, "encoder": encoder}


class Drawn(NamedTuple):
    """A model, its inputs and parameters, its statistics, a cotangent, and float64 gradients."""

    model: keras.Model
    tensors: dict[str, np.ndarray]
    statistics: list[np.ndarray]
    cotangent: np.ndarray
    truth: dict[str, np.ndarray]

    @property
    def feeds(self) -> dict[str, np.ndarray]:
        return {**self.tensors, "ct_y": self.cotangent}

    def apply(self, x: Any, parameters: Any) -> Any:
        statistics = [tf.constant(array, x.dtype) for array in self.statistics]
        return self.model.stateless_call(list(parameters), statistics, x, training=False)[0]


def built(name: str, dtype: str) -> keras.Model:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        x = keras.Input((16, 16, 3))
        return keras.Model(x, MODELS[name](x))
    finally:
        keras.config.set_dtype_policy(before)


@cache
def drawn(name: str) -> Drawn:
    rng = np.random.default_rng(5)
    model = built(name, "float32")

    def draw(variable: Any) -> np.ndarray:
        if variable.name in {"gamma", "moving_variance"}:
            array = rng.uniform(0.5, 1.5, variable.shape)
        else:
            fan_in = np.prod(variable.shape[:-1]) if len(variable.shape) > 1 else 10.0
            array = rng.standard_normal(variable.shape) * np.sqrt(1.0 / fan_in)
        return array.astype(np.float32)

    tensors = {"x": rng.standard_normal((BATCH, 16, 16, 3)).astype(np.float32)}
    tensors |= {f"p{i}": draw(variable) for i, variable in enumerate(model.trainable_variables)}
    statistics = [draw(variable) for variable in model.non_trainable_variables]
    cotangent = rng.standard_normal((BATCH, *model.output_shape[1:])).astype(np.float32)
    wide = Drawn(built(name, "float64"), tensors, statistics, cotangent, {})
    leaves = [tf.constant(array, tf.float64) for array in tensors.values()]
    found = taped(wide, leaves, tf.constant(cotangent, tf.float64))
    truth = {f"d_{key}": gradient.numpy() for key, gradient in zip(tensors, found, strict=True)}
    return Drawn(model, tensors, statistics, cotangent, truth)


def taped(case: Drawn, leaves: list[Any], cotangent: Any) -> list[Any]:
    with tf.GradientTape() as tape:
        tape.watch(leaves)
        y = case.apply(leaves[0], leaves[1:])
    return tape.gradient(y, leaves, cotangent)


def converted(function: Callable[..., Any], shapes: dict[str, Any], **options: Any) -> onnx.ModelProto:
    """Return the graph of a function; what tf2onnx does not know it leaves in, and that is no graph."""
    signature = [tf.TensorSpec(shape, tf.float32, name=name) for name, shape in shapes.items()]
    graph = tf.function(function, input_signature=signature)
    model, _ = tf2onnx.convert.from_function(graph, input_signature=signature, opset=18, **options)
    left = {node.op_type for node in model.graph.node if not onnx.defs.has(node.op_type, 18, node.domain)}
    assert not left
    return model


@cache
def gradients(name: str) -> dict[str, np.ndarray]:
    """Return what ONNX Runtime makes of the exported graph with gradients added."""
    case = drawn(name)
    shapes = {key: array.shape for key, array in case.tensors.items()} | {"x": (None, 16, 16, 3)}
    model = converted(lambda x, *parameters: {"y": case.apply(x, parameters)}, shapes)
    return run(add_gradients(model, list(case.tensors), keep_outputs=False), case.feeds)


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]
    taken = {one.name: feeds[one.name] for one in session.get_inputs()}
    return dict(zip(names, session.run(names, taken), strict=True))


def check_close(got: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    """Every tensor within TOLERANCE of its greatest element; a gradient that is zero by theory has none."""
    assert set(got) == set(wanted)
    worst = {}
    for name, truth in wanted.items():
        assert (got[name].dtype, got[name].shape) == (np.float32, truth.shape), name
        limit = TOLERANCE * max(float(np.abs(truth).max()), 0.1)
        worst[name] = np.abs(got[name] - truth).max() / limit
        np.testing.assert_allclose(got[name], truth, rtol=0, atol=limit, err_msg=name)
    print(max(worst.values()))


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_an_export_are_those_of_the_tape(name: str) -> None:
    check_close(gradients(name), drawn(name).truth)


def backward_graph(name: str) -> onnx.ModelProto:
    case = drawn(name)
    shapes = {key: array.shape for key, array in case.feeds.items()}

    def backward(*tensors: Any) -> dict[str, Any]:
        found = taped(case, list(tensors[:-1]), tensors[-1])
        return {f"d_{key}": gradient for key, gradient in zip(case.tensors, found, strict=True)}

    return converted(backward, shapes, custom_op_handlers=HANDLERS)


def same(size: int, out: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Return what TensorFlow's padding SAME adds before and after an axis."""
    total = max((out - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


class Nodes:
    """What a handler of tf2onnx writes in the place of one node of TensorFlow's."""

    def __init__(self, context: Any, node: Any) -> None:
        self.context, self.inputs, self.node = context, list(node.input), node
        self.shapes = [context.get_shape(name) for name in node.input]
        self.wanted = [(name, context.get_shape(name), context.get_dtype(name)) for name in node.output]
        context.remove_node(node.name)

    def __getattr__(self, op_type: str) -> Callable[..., str]:
        def write(*inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
            names = [one if isinstance(one, str) else self.constant(one) for one in inputs]
            made = self.context.make_node(op_type, names, attr=attributes, output_count=outputs).output
            return made[0] if outputs == 1 else made

        return write

    def constant(self, value: Any) -> str:
        array = np.asarray(value, np.float32 if isinstance(value, float) else np.int64)
        return self.context.make_const(tf2onnx.utils.make_name("constant"), array).output[0]

    def attribute(self, name: str) -> Any:
        return onnx.helper.get_attribute_value(self.node.attr[name])

    def windows(self, size: Any, out: Any, kernel: Any) -> dict[str, list[int]]:
        """Return strides, dilations and pads of a node over the two axes of NHWC images."""
        assert self.attribute("data_format") == b"NHWC"
        strides = self.attribute("strides")[1:3]
        dilations = self.attribute("dilations")[1:3] if "dilations" in self.node.attr else [1, 1]
        pads = [(0, 0), (0, 0)]
        if self.attribute("padding") == b"SAME":
            pads = [same(*each) for each in zip(size, out, kernel, strides, dilations, strict=True)]
        return {"strides": strides, "dilations": dilations, "pads": [each[i] for i in (0, 1) for each in pads]}


def relu_grad(b: Nodes, bound: float | None) -> str:
    g, x = b.inputs
    passes = b.Greater(x, 0.0)
    return b.Where(passes if bound is None else b.And(passes, b.Less(x, bound)), g, 0.0)


def tanh_grad(b: Nodes) -> str:
    y, g = b.inputs
    return b.Mul(g, b.Sub(1.0, b.Mul(y, y)))


def rsqrt_grad(b: Nodes) -> str:
    y, g = b.inputs
    return b.Mul(b.Mul(g, -0.5), b.Pow(y, 3.0))


def bias_add_grad(b: Nodes) -> str:
    return b.ReduceSum(b.inputs[0], list(range(len(b.shapes[0]) - 1)), keepdims=0)


def kernel_grad(b: Nodes, *, depthwise: bool) -> str:
    """The kernel's gradient is the convolution of the input by the cotangent, with images in the place of channels."""
    x, _, g = b.inputs
    (images, *size, channels), out, kernel = b.shapes[0], b.shapes[2][1:3], b.wanted[0][1][:2]
    at = b.windows(size, out, kernel)
    x, g = b.Transpose(x, perm=[3, 0, 1, 2]), b.Transpose(g, perm=[3, 0, 1, 2])
    if depthwise:
        x = b.Reshape(x, [1, channels * images, *size])
    at["strides"], at["dilations"] = at["dilations"], at["strides"]
    found = b.Conv(x, g, group=channels if depthwise else 1, **at)
    found = b.Slice(found, [0, 0], kernel, [2, 3])
    return b.Transpose(found, perm=[2, 3, 1, 0] if depthwise else [2, 3, 0, 1])


def depthwise_input_grad(b: Nodes) -> str:
    _, w, g = b.inputs
    _, *size, channels = b.wanted[0][1]
    out, kernel = b.shapes[2][1:3], b.shapes[1][:2]
    at = b.windows(size, out, kernel)
    reached = [(out[i] - 1) * at["strides"][i] + kernel[i] - at["pads"][i] - at["pads"][2 + i] for i in (0, 1)]
    missed = [size[i] - reached[i] for i in (0, 1)]
    w, g = b.Transpose(w, perm=[2, 3, 0, 1]), b.Transpose(g, perm=[0, 3, 1, 2])
    return b.Transpose(b.ConvTranspose(g, w, group=channels, output_padding=missed, **at), perm=[0, 2, 3, 1])


def max_pool_grad(b: Nodes) -> str:
    x, _, g = b.inputs
    images, *size, channels = b.shapes[0]
    kernel = b.attribute("ksize")[1:3]
    at = b.windows(size, b.shapes[2][1:3], kernel)
    x, g = b.Transpose(x, perm=[0, 3, 1, 2]), b.Transpose(g, perm=[0, 3, 1, 2])
    _, chosen = b.MaxPool(x, outputs=2, kernel_shape=kernel, **at)
    zeros = b.Expand(0.0, [images * channels * size[0] * size[1]])
    found = b.ScatterElements(zeros, b.Reshape(chosen, [-1]), b.Reshape(g, [-1]), axis=0, reduction="add")
    return b.Transpose(b.Reshape(found, [images, channels, *size]), perm=[0, 2, 3, 1])


def nearest_grad(b: Nodes) -> str:
    (images, *size, channels), wanted = b.shapes[0], b.wanted[0][1][1:3]
    parts = [images, wanted[0], size[0] // wanted[0], wanted[1], size[1] // wanted[1], channels]
    return b.ReduceSum(b.Reshape(b.inputs[0], parts), [2, 4], keepdims=0)


def shapes(b: Nodes) -> list[str]:
    return [b.Cast(b.Shape(x), to=onnx.TensorProto.INT32) for x in b.inputs]


def handler(write: Callable[[Nodes], Any]) -> tuple[Any, list[Any]]:
    def handle(context: Any, node: Any, name: str, arguments: Any) -> None:
        b = Nodes(context, node)
        found = write(b)
        for value, (output, shape, dtype) in zip([found] if isinstance(found, str) else found, b.wanted, strict=True):
            context.make_node("Identity", [value], outputs=[output], shapes=[shape], dtypes=[dtype])

    return handle, []


# The operators of TensorFlow's gradients that these models need and tf2onnx lacks.
HANDLERS = {
    "ReluGrad": handler(lambda b: relu_grad(b, None)),
    "Relu6Grad": handler(lambda b: relu_grad(b, 6.0)),
    "TanhGrad": handler(tanh_grad),
    "RsqrtGrad": handler(rsqrt_grad),
    "BiasAddGrad": handler(bias_add_grad),
    "Conv2DBackpropFilter": handler(lambda b: kernel_grad(b, depthwise=False)),
    "DepthwiseConv2dNativeBackpropFilter": handler(lambda b: kernel_grad(b, depthwise=True)),
    "DepthwiseConv2dNativeBackpropInput": handler(depthwise_input_grad),
    "MaxPoolGrad": handler(max_pool_grad),
    "ResizeNearestNeighborGrad": handler(nearest_grad),
    "ShapeN": handler(shapes),
}


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("name", MODELS)
def test_the_exported_graph_of_the_tapes_own_gradients_agrees(name: str) -> None:
    check_close(gradients(name), run(backward_graph(name), drawn(name).feeds))
