"""What torch's kernels say of themselves, and sparsemax far from zero."""

from __future__ import annotations

import numpy as np
import pytest

from actconform.catalog.kernels import ROWS, UNARY
from actconform_torch import TorchBackend

KERNELS = {kernel.name: kernel for kernel in UNARY + ROWS}


@pytest.fixture(scope="module")
def backend() -> TorchBackend:
    return TorchBackend()


def test_sparsemax_is_unmoved_by_a_shift_of_its_row(backend: TorchBackend) -> None:
    program = backend.build(KERNELS["sparsemax"], "f32")
    row = np.array([[0.0, 0.5, -3.0]], np.float32)
    np.testing.assert_allclose(program.forward({"x": row})["y"], [[0.25, 0.75, 0.0]])
    np.testing.assert_allclose(program.forward({"x": row + np.float32(2.0**22)})["y"], [[0.25, 0.75, 0.0]])


def test_programs_say_what_computes_them(backend: TorchBackend) -> None:
    said = {name: backend.build(kernel, "f32").implementation for name, kernel in KERNELS.items()}
    assert said["gelu-erf"] == "torch.nn.functional.gelu(approximate='none')"
    assert said["leaky-relu"] == "torch.nn.functional.leaky_relu(negative_slope=0.01)"
    assert said["leaky-relu-default"] == "torch.nn.functional.leaky_relu"
    assert said["quick-gelu"] == "composition: x * torch.sigmoid(1.702 * x)"
    assert all(text.startswith(("torch.", "composition: ")) for text in said.values())
