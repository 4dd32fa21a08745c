"""What Keras's kernels say of themselves."""

from __future__ import annotations

import pytest

from actconform.catalog.kernels import ROWS, UNARY
from actconform_keras import KerasBackend

KERNELS = {kernel.name: kernel for kernel in UNARY + ROWS}


@pytest.fixture(scope="module")
def backend() -> KerasBackend:
    return KerasBackend()


def test_programs_say_what_computes_them(backend: KerasBackend) -> None:
    said = {name: backend.build(kernel, "f32").implementation for name, kernel in KERNELS.items()}
    assert said["gelu-erf"] == "keras.activations.gelu(approximate=False)"
    assert said["leaky-relu"] == "keras.activations.leaky_relu(negative_slope=0.01)"
    assert said["leaky-relu-0.3"] == "keras.layers.LeakyReLU(negative_slope=0.3)"
    assert said["leaky-relu-default"] == "keras.activations.leaky_relu"
    assert said["prelu"] == "keras.layers.PReLU"
    assert said["quick-gelu"] == "composition: x * keras.activations.sigmoid(1.702 * x)"
    assert all(text.startswith(("keras.", "composition: ")) for text in said.values())
