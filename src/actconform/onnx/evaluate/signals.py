"""The correctly rounded evaluator's operators of signals: Fourier transforms, windows, mel weights; and Det. In float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from actconform.onnx.evaluate.elementwise import operation

if TYPE_CHECKING:
    from actconform.onnx.evaluate.elementwise import Array, OperatorNode


@operation("Det")
def _det(_: OperatorNode, x: Array) -> Array:
    return np.asarray(np.linalg.det(x))


def _complex(x: Array) -> Array:
    """Return numbers with their imaginary parts along the last axis; real ones have but one number there."""
    numbers: Array = x[..., 0] + 1j * x[..., 1] if x.shape[-1] == 2 else x[..., 0]
    return numbers


def _parts(numbers: Array) -> Array:
    return np.stack([numbers.real, numbers.imag], -1)


@operation("DFT")
def _dft(node: OperatorNode, x: Array, length: Array | None = None, axis: Array | None = None) -> Array:
    """Of half a spectrum, with `onesided`, the inverse is real. The axis is an attribute before opset 20."""
    attributes = node.attributes
    along = int(attributes.get("axis", -2 if axis is None else np.ravel(axis)[0])) % x.ndim
    n = None if length is None else int(np.ravel(length)[0])
    numbers = _complex(x)
    if not attributes["onesided"]:
        return _parts((np.fft.ifft if attributes["inverse"] else np.fft.fft)(numbers, n, along))
    if attributes["inverse"]:
        signal: Array = np.fft.irfft(numbers, n, along)[..., None]
        return signal
    spectrum = np.fft.fft(numbers, n, along)
    return _parts(spectrum.take(np.arange(spectrum.shape[along] // 2 + 1), along))


@operation("STFT")
def _stft(node: OperatorNode, x: Array, step: Array, window: Array | None = None, length: Array | None = None) -> Array:
    """Return the transform of each frame: (batch, frames, frequencies, 2)."""
    signal = _complex(x)
    stated = signal.shape[1] if window is None else len(window)
    n = stated if length is None else int(np.ravel(length)[0])
    frames = sliding_window_view(signal, n, axis=1)[:, :: int(np.ravel(step)[0])]
    spectrum = np.fft.fft(frames if window is None else frames * window, axis=-1)
    return _parts(spectrum[..., : n // 2 + 1] if node.attributes["onesided"] else spectrum)


WINDOWS = {"BlackmanWindow": (0.42, 0.5, 0.08), "HammingWindow": (25 / 46, 21 / 46, 0.0), "HannWindow": (0.5, 0.5, 0.0)}


@operation(*WINDOWS)
def _window(node: OperatorNode, size: Array) -> Array:
    """Return a - b cos(2 pi n / N) + c cos(4 pi n / N); N is the size, or one less where the window is symmetric."""
    a, b, c = WINDOWS[node.op_type]
    n = int(np.ravel(size)[0])
    turn = 2 * np.pi * np.arange(n) / (n if node.attributes["periodic"] else n - 1)
    window: Array = a - b * np.cos(turn) + c * np.cos(2 * turn)
    return window


@operation("MelWeightMatrix")
def _mel_weights(
    _: OperatorNode, n_bins: Array, dft_length: Array, sample_rate: Array, low_hertz: Array, high_hertz: Array
) -> Array:
    """Return the weights (frequencies, mel bins) of triangles over equal steps of mel = 2595 log10(1 + hertz / 700)."""
    bins, length, rate = (int(np.ravel(number)[0]) for number in (n_bins, dft_length, sample_rate))
    low, high = (2595 * np.log10(1 + float(np.ravel(hertz)[0]) / 700) for hertz in (low_hertz, high_hertz))
    mel = low + np.arange(bins + 2) * ((high - low) / (bins + 2))
    hertz = 700 * np.expm1(mel / 2595 * np.log(10))
    corners = np.floor((length + 1) * hertz / rate).astype(int)
    weights = np.zeros((length // 2 + 1, bins))
    for i, (left, centre, right) in enumerate(zip(corners, corners[1:], corners[2:], strict=False)):
        weights[left : centre + 1, i] = (np.arange(left, centre + 1) - left) / (centre - left) if centre > left else 1.0
        weights[centre:right, i] = (right - np.arange(centre, right)) / max(right - centre, 1)
    return weights
