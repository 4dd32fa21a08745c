"""Error bounds of operators that read an image between its pixels, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto


def _image(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


RESIZES = [
    *(
        {"mode": mode, "coordinate_transformation_mode": places}
        for mode in ("linear", "cubic", "nearest")
        for places in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric")
    ),
    *({"mode": "nearest", "nearest_mode": rounding} for rounding in ("floor", "ceil", "round_prefer_ceil")),
    {"mode": "cubic", "exclude_outside": 1, "cubic_coeff_a": -0.5},
    {"mode": "linear", "antialias": 1},
    {"mode": "cubic", "antialias": 1},
]


@pytest.mark.parametrize("attributes", RESIZES, ids=str)
@pytest.mark.parametrize("scales", [(2.0, 2.0), (1.7, 2.3), (0.6, 0.45), (3.0, 1.0), (0.5, 4.0)])
def test_resizing(node, share, passes_on, attributes, scales):
    image = _image(1, 2, 13, 10) + np.float32(3)
    layer = node("Resize", **attributes)
    inputs = [image, None, np.array([1, 1, *scales], np.float32)]
    (result,), (bound,) = layer.runtime(inputs), layer.bounds(inputs)
    assert share(result, bound) <= 1
    if attributes["mode"] == "nearest" and scales in {(2.0, 2.0), (0.5, 4.0)} and "align" not in str(attributes):
        assert bound.error is None
    passes_on(layer, inputs, skipped=[2], draws=2)


def test_resizing_to_sizes(node, share):
    image = _image(1, 2, 13, 10)
    for attributes in (
        {"mode": "linear"},
        {"mode": "nearest"},
        {"mode": "linear", "keep_aspect_ratio_policy": "not_larger", "axes": [2, 3]},
    ):
        layer = node("Resize", **attributes)
        sizes = [31, 27] if "axes" in attributes else [1, 2, 31, 27]
        inputs = [image, None, None, np.array(sizes)]
        assert share(layer.runtime(inputs)[0], layer.bounds(inputs)[0]) <= 1


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_cropping_and_older_resizing(node, share, mode):
    image = _image(1, 2, 13, 10)
    layer = node("Resize", mode=mode, coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=7.0)
    inputs = [image, np.array([0, 0, 0.2, -0.1, 1, 1, 0.9, 1.2], np.float32), np.array([1, 1, 1.5, 1.3], np.float32)]
    assert share(layer.runtime(inputs)[0], layer.bounds(inputs)[0]) <= 1
    inputs = [image, np.array([1, 1, 2.0, 1.3], np.float32)]
    for op_type, opset in (("Resize", 10), ("Upsample", 9)):
        older = node(op_type, opset=opset, mode=mode)
        assert share(older.runtime(inputs)[0], older.bounds(inputs)[0]) <= 1


def test_cubic_weights_of_pixels_just_out_of_reach(node, share):
    layer = node("Resize", mode="cubic", coordinate_transformation_mode="half_pixel_symmetric")
    for seed in range(20):
        rng = np.random.default_rng(seed)
        image = (rng.standard_normal((1, 2, 5, 12)) * 10.0 ** rng.uniform(-8, 8, (1, 2, 5, 12))).astype(np.float32)
        inputs = [image, None, np.array([1, 1, 3.4707093, 1.25], np.float32)]
        assert share(layer.runtime(inputs)[0], layer.bounds(inputs)[0]) <= 1


def test_cubic_weights_of_which_few_are_inside(node, share):
    layer = node("Resize", mode="cubic", coordinate_transformation_mode="asymmetric", exclude_outside=1)
    for seed in range(20):
        inputs = [_image(1, 2, 3, 3, seed=seed), None, None, np.array([1, 2, 31, 54])]
        assert share(layer.runtime(inputs)[0], layer.bounds(inputs)[0]) <= 1


def test_a_crop_of_no_pixels(node):
    inputs = [_image(1, 2, 2, 4), np.array([0, 0, 0.1, 0.1, 1, 1, 0.7, 0.8]), np.array([1, 1, 0.3, 1.3])]
    (bound,) = node("Resize", mode="nearest", coordinate_transformation_mode="tf_crop_and_resize").bounds(inputs)
    assert bound.value.shape == (1, 2, 0, 5)


def test_a_crop_that_begins_at_the_edge_is_certain_there(node):
    inputs = [_image(1, 2, 13, 10), np.array([0, 0, 0, 0, 1, 1, 0.7, 0.8]), np.array([1, 1, 1.5, 1.3])]
    layer = node("Resize", mode="linear", coordinate_transformation_mode="tf_crop_and_resize")
    (bound,) = layer.bounds(inputs)
    assert np.max(bound.error) < 1e-4


@pytest.mark.parametrize("scale", [2.0, 1.7])
def test_faults_of_resizing_exceed_the_bound(node, share, scale):
    inputs = [_image(1, 2, 13, 10), None, np.array([1, 1, scale, scale], np.float32)]
    others = [
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
        {"mode": "linear", "coordinate_transformation_mode": "asymmetric"},
        {"mode": "cubic"},
        {"mode": "nearest"},
    ]
    for mode in ("linear", "nearest", "cubic"):
        (bound,) = node("Resize", mode=mode).bounds(inputs)
        for other in others:
            if other != {"mode": mode}:
                (faulty,) = node("Resize", **other).real(inputs)
                assert share(faulty, bound) > 1e3
        (half,) = node("Resize", mode=mode).real([inputs[0].astype(np.float16), *inputs[1:]])
        assert share(half, bound) > 10
    (bound,) = node("Resize", mode="cubic").bounds(inputs)
    (sharper,) = node("Resize", mode="cubic", cubic_coeff_a=-0.74).real(inputs)
    assert share(sharper, bound) > 10
    (bound,) = node("Resize", mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor").bounds(
        inputs
    )
    (faulty,) = node("Resize", mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="ceil").real(
        inputs
    )
    assert share(faulty, bound) == np.inf


def test_scales_in_doubt_make_anything_possible(node):
    inputs = [_image(1, 2, 4, 4), None, np.array([1, 1, 2, 2], np.float32)]
    (bound,) = node("Resize", mode="linear").bounds(inputs, [None, None, np.full(4, 1e-3)])
    assert np.isinf(bound.error).all()


def test_resized_integers_are_truncated_or_rounded(node, share):
    image = np.random.default_rng(0).integers(0, 255, (1, 1, 9, 9), np.uint8)
    inputs = [image, None, np.array([1, 1, 1.7, 2], np.float32)]
    layer = node("Resize", output_types=[TensorProto.UINT8], mode="linear")
    assert share(layer.runtime(inputs)[0], layer.bounds(inputs)[0]) <= 1
    layer = node("Resize", output_types=[TensorProto.UINT8], mode="nearest")
    assert share(layer.runtime(inputs)[0], layer.bounds(inputs)[0]) <= 1


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align_corners", [0, 1])
def test_grid_sampling(node, share, passes_on, mode, padding, align_corners):
    grid = np.random.default_rng(1).uniform(-1.3, 1.3, (2, 6, 5, 2)).astype(np.float32)
    inputs = [_image(2, 3, 9, 7), grid]
    layer = node("GridSample", mode=mode, padding_mode=padding, align_corners=align_corners)
    (result,), (bound,) = layer.runtime(inputs), layer.bounds(inputs)
    assert share(result, bound) <= 1
    passes_on(layer, inputs, draws=3)
    (other,) = node("GridSample", mode=mode, padding_mode=padding, align_corners=1 - align_corners).real(inputs)
    assert share(other, bound) > 100


def test_grid_sampling_of_a_volume_at_its_pixels(node, share):
    inputs = [_image(1, 2, 4, 4, 5), np.random.default_rng(1).uniform(-1, 1, (1, 3, 3, 3, 3)).astype(np.float32)]
    layer = node("GridSample", mode="linear", align_corners=1)
    assert share(layer.runtime(inputs)[0], layer.bounds(inputs)[0]) <= 1


@pytest.mark.parametrize("align_corners", [0, 1])
def test_affine_grids(node, share, passes_on, align_corners):
    inputs = [_image(2, 2, 3), np.array([2, 3, 7, 5])]
    layer = node("AffineGrid", align_corners=align_corners)
    assert share(layer.runtime(inputs)[0], layer.bounds(inputs)[0]) <= 1
    passes_on(layer, inputs)
    (bound,) = layer.bounds(inputs)
    assert share(node("AffineGrid", align_corners=1 - align_corners).real(inputs)[0], bound) > 1e4
