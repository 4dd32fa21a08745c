"""Error bounds of operators on regions, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

INT64 = TensorProto.INT64


def _regions(count, batch, height, width, seed=0):
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(-2, [width + 2, height + 2], (count, 2, 2)), axis=1)
    return corners.reshape(count, 4).astype(np.float32), rng.integers(0, batch, count)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("places", ["half_pixel", "output_half_pixel"])
@pytest.mark.parametrize("ratio", [0, 2])
def test_aligned_regions(node, share, passes_on, mode, places, ratio):
    image = np.random.default_rng(0).standard_normal((2, 3, 12, 15)).astype(np.float32) + np.float32(2)
    rois, items = _regions(9, 2, 24, 30)
    inputs = [image, rois, items]
    settings = {"output_height": 3, "output_width": 4, "sampling_ratio": ratio, "spatial_scale": 0.5, "mode": mode}
    layer = node("RoiAlign", coordinate_transformation_mode=places, **settings)
    (bound,) = layer.bounds(inputs)
    assert share(layer.runtime(inputs)[0], bound) <= 1
    passes_on(layer, inputs, skipped=[1], draws=3)
    passes_on(layer, inputs, relative=1e-6, draws=3)
    other = "half_pixel" if places != "half_pixel" else "output_half_pixel"
    assert share(node("RoiAlign", coordinate_transformation_mode=other, **settings).real(inputs)[0], bound) > 1e3
    assert np.median(bound.error) < 1e-4


def test_pooled_regions(node, share):
    image = np.random.default_rng(0).standard_normal((2, 3, 12, 15)).astype(np.float32)
    rois, items = _regions(30, 2, 180, 220)
    inputs = [image, np.concatenate([items[:, None].astype(np.float32), np.clip(rois, 0, None)], 1)]
    layer = node("MaxRoiPool", pooled_shape=[3, 4], spatial_scale=1 / 16)
    (result,), (bound,) = layer.runtime(inputs), layer.bounds(inputs)
    assert share(result, bound) <= 1
    certain = np.zeros(len(rois), bool) if bound.error is None else (bound.error == 0).all(axis=(1, 2, 3))
    assert bound.error is None or certain.mean() > 0.5
    (shifted,) = node("MaxRoiPool", pooled_shape=[3, 4], spatial_scale=1 / 15).real(inputs)
    assert share(shifted, bound) == np.inf
    (doubtful,) = layer.bounds(inputs, [np.full(image.shape, 0.1), None])
    assert (doubtful.error >= 0.1).all()


def _boxes(count=40, classes=2):
    rng = np.random.default_rng(0)
    first = rng.uniform(0, 80, (1, count, 2))
    boxes = np.concatenate([first, first + rng.uniform(5, 40, (1, count, 2))], -1).astype(np.float32)
    return boxes, rng.uniform(0, 1, (1, classes, count)).astype(np.float32)


@pytest.mark.parametrize("centred", [0, 1])
def test_suppression(node, share, centred):
    boxes, scores = _boxes()
    if centred:
        boxes = np.concatenate([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], -1)
    inputs = [boxes, scores, np.array([20]), np.array([0.4], np.float32), np.array([0.2], np.float32)]
    layer = node("NonMaxSuppression", output_types=[INT64], center_point_box=centred)
    (result,), (bound,) = layer.runtime(inputs), layer.bounds(inputs)
    assert bound.error is None
    assert share(result, bound) == 0
    fewer = node("NonMaxSuppression", output_types=[INT64], center_point_box=centred)
    assert share(fewer.runtime(inputs[:3])[0], fewer.bounds(inputs[:3])[0]) == 0


def test_a_suppression_that_rounding_decides_may_come_out_either_way(node):
    boxes = np.array([[[0, 0, 10, 10], [0, 0, 10, 5.000001], [50, 50, 60, 60]]], np.float32)
    scores = np.array([[[0.9, 0.8, 0.7]]], np.float32)
    inputs = [boxes, scores, np.array([9]), np.array([0.5], np.float32)]
    layer = node("NonMaxSuppression", output_types=[INT64])
    assert np.isinf(layer.bounds(inputs)[0].error).all()
    shown = np.array([[0, 0, 0], [0, 0, 1], [0, 0, 2]])
    (bound,) = layer.bounds(inputs, observed=[shown])
    np.testing.assert_array_equal(bound.value, shown)
    assert np.isinf(bound.error).all()
    inputs[3] = np.array([0.6], np.float32)
    assert layer.bounds(inputs)[0].error is None
    assert np.isinf(layer.bounds(inputs, [None, np.full(scores.shape, 0.1), None, None])[0].error).all()
    inputs[1] = np.array([[[0.9, 0.9, 0.9]]], np.float32)
    assert np.isinf(layer.bounds(inputs)[0].error).all()
