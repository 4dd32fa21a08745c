"""Gradients of DFT against torch's: both directions, lengths that pad and cut, real and complex, one and both sides."""

from __future__ import annotations

import numpy as np
import pytest

from actconform.errors import UnsupportedOperator
from actconform.onnx.grad.reverse_mode import add_gradients

torch = pytest.importorskip("torch")


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape)


@pytest.mark.parametrize("length", [None, 4, 5, 8])
@pytest.mark.parametrize("inverse", [0, 1])
@pytest.mark.parametrize("opset", [17, 20])
def test_complex_numbers(agrees, setting, opset, inverse, length):
    transform = torch.fft.ifft if inverse else torch.fft.fft

    def forward(x, *_):
        return torch.view_as_real(transform(torch.view_as_complex(x), n=length, dim=1))

    given = None if length is None else setting(length)
    axis, more = ({"axis": 1}, []) if opset == 17 else ({}, [setting(1)])
    inputs = [normal(2, 5, 3, 2), *([given, *more] if given or more else [])]
    agrees("DFT", inputs, forward, exact="ours", opset=opset, free={0: (0, 1)}, inverse=inverse, **axis)


@pytest.mark.parametrize("length", [None, 5, 8])
@pytest.mark.parametrize("onesided", [0, 1])
def test_real_numbers(agrees, setting, onesided, length):
    def forward(x, *_):
        transform = torch.fft.rfft if onesided else torch.fft.fft
        return torch.view_as_real(transform(x[..., 0], n=length, dim=-1))

    inputs = [normal(2, 3, 6, 1), *([] if length is None else [setting(length)])]
    agrees("DFT", inputs, forward, exact="ours", opset=20, onesided=onesided)


def test_a_length_of_32_bits_that_only_a_run_tells(agrees):
    def forward(x, length):
        return torch.view_as_real(torch.fft.rfft(x[..., 0], n=int(length), dim=-1))

    inputs = [normal(2, 3, 6, 1), np.array(8, np.int32)]
    agrees("DFT", inputs, forward, exact="ours", opset=20, onesided=1)


def test_a_one_sided_inverse_is_refused(graph_of):
    model = graph_of("DFT", [normal(1, 3, 2)], [3], opset=20, inverse=1, onesided=1)
    with pytest.raises(UnsupportedOperator, match=r"DFT .*one-sided inverse .*both sides"):
        add_gradients(model, ["x0"])
