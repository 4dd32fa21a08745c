"""Gradients of GridSample against torch's, in every mode and padding, and inside and outside of the image."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

NEWER = {"bilinear": "linear", "bicubic": "cubic", "nearest": "nearest"}  # what opset 20 calls them


def image_and_grid(*axes, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((2, 3, *axes)), rng.uniform(-1.7, 1.7, (2, *[2] * (len(axes) - 1), 4, len(axes)))


def sampled(mode, padding, aligned):
    def forward(x, grid):
        how = {"mode": mode, "padding_mode": padding, "align_corners": bool(aligned)}
        return torch.nn.functional.grid_sample(x, grid, **how)

    return forward


@pytest.mark.parametrize("opset", [16, 20])
@pytest.mark.parametrize("aligned", [0, 1])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", NEWER)
def test_images(agrees, mode, padding, aligned, opset):
    how = {"mode": NEWER[mode] if opset == 20 else mode, "padding_mode": padding, "align_corners": aligned}
    free = {0: (0, 2, 3), 1: (0, 1)}
    agrees(
        "GridSample",
        [*image_and_grid(4, 5)],
        sampled(mode, padding, aligned),
        exact="ours",
        opset=opset,
        free=free,
        **how,
    )


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_volumes(agrees, padding):
    forward = sampled("bilinear", padding, 0)
    agrees("GridSample", [*image_and_grid(3, 4, 2)], forward, exact="ours", mode="linear", padding_mode=padding)


@pytest.mark.parametrize("aligned", [0, 1])
def test_an_image_of_one_pixel(agrees, aligned):
    agrees(
        "GridSample",
        [*image_and_grid(1, 3)],
        sampled("bilinear", "border", aligned),
        exact="ours",
        opset=16,
        mode="bilinear",
        padding_mode="border",
        align_corners=aligned,
    )
