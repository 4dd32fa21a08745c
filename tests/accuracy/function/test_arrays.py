"""Arrays reach functions and come back bit for bit; which ones a function takes is told by where it comes from."""

from __future__ import annotations

import functools
import sys
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import ml_dtypes
import numpy as np
import pytest

from actconform.accuracy.function.arrays import array_kind, numpy_array
from actconform.accuracy.function.measure import measure
from actconform.errors import UsageError

ALL_PATTERNS = np.arange(1 << 16, dtype=np.uint16)
FORMATS = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]


class Tensor:
    """A stand-in for the arrays of a framework."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


@pytest.fixture
def framework(monkeypatch):
    """A stand-in for JAX, imported: `jax.numpy.asarray`, and functions that come from it."""
    monkeypatch.setattr(Tensor, "__module__", "jaxlib._jax")
    module, arrays = ModuleType("jax"), ModuleType("jax.numpy")
    arrays.asarray = Tensor
    module.numpy = arrays

    def tanh(x):
        assert isinstance(x, Tensor)
        return Tensor(np.tanh(x.array))

    tanh.__module__ = "jax.numpy"
    arrays.tanh = tanh
    monkeypatch.setitem(sys.modules, "jax", module)
    return module


def test_functions_of_a_framework_get_its_arrays(framework):
    tanh = framework.numpy.tanh
    assert array_kind(None, [tanh, None]).name == "jax"
    assert array_kind(None, [functools.partial(tanh), None]).name == "jax"
    assert array_kind(None, [np.tanh, None]).name == "numpy"
    assert array_kind(None, [lambda x: x, tanh]).name == "jax"
    assert measure(tanh, "tanh", "bf16").conforms
    assert measure(lambda x: tanh(x), "tanh", "f32", arrays="jax").conforms  # noqa: PLW0108  its module is this one


def test_a_function_without_a_module_is_found_in_its_framework(framework):
    class Builtin:
        __name__ = "relu"
        __module__ = None

        def __call__(self, x):
            return Tensor(np.maximum(x.array, 0))

    framework.relu = Builtin()
    Builtin.__module__ = "elsewhere"
    assert array_kind(None, [framework.relu]).name == "jax"


def test_two_functions_convert_there_and_back():
    class Box:
        def __init__(self, array):
            self.array = array

    measured = measure(lambda x: Box(np.tanh(x.array)), "tanh", "f16", arrays=(Box, lambda box: box.array))
    assert measured.conforms


def test_a_framework_that_is_not_imported_is_not_imported_now(monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    with pytest.raises(UsageError, match="tensorflow is not imported in this process"):
        array_kind("tensorflow", [np.tanh])
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize("kind", ["torsh", "jax:0", "numpy:0"])
def test_an_unknown_kind_is_refused(kind):
    with pytest.raises(UsageError, match="no kind of arrays"):
        array_kind(kind, [np.tanh])


@pytest.mark.parametrize("returned", [None, 1.0, [1.0], "1", object()])
def test_what_is_no_array_is_refused(returned):
    with pytest.raises(UsageError, match="wanted an array"):
        numpy_array(returned)


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
def test_every_pattern_goes_to_torch_and_back_bit_for_bit(dtype):
    pytest.importorskip("torch")
    kind = array_kind("torch", [])
    x = ALL_PATTERNS.view(dtype).reshape(256, 256)
    np.testing.assert_array_equal(kind.take(kind.give(x.copy())).view(np.uint16), x.view(np.uint16))


def test_what_comes_from_torch_is_known_as_such():
    torch = pytest.importorskip("torch")
    functions = (torch.tanh, torch.nn.functional.gelu, torch.nn.GELU(), torch.special.erf, torch.Tensor.tanh)
    for function in (*functions, torch.autograd.Function.apply, functools.partial(torch.clamp, min=0)):
        assert array_kind(None, [function]).name == "torch"
    assert array_kind(None, [lambda x: x, torch.relu]).name == "torch"


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_a_module_of_torch_is_measured_with_its_own_gradient(dtype):
    torch = pytest.importorskip("torch")

    def gradient(x, ct):
        x = x.requires_grad_()
        return torch.autograd.grad(torch.relu(x), x, ct)[0]

    measured = measure(torch.nn.ReLU(), "relu", dtype, gradient)
    assert {"nan-lost"} >= {str(finding.class_) for finding in measured.findings if finding.deviation is None}
    assert measured.function == "ReLU"


def test_a_write_to_a_tensor_is_found():
    torch = pytest.importorskip("torch")
    found = {str(finding.class_) for finding in measure(torch.nn.ReLU(inplace=True), "relu", "bf16").findings}
    assert "mutates-input" in found


@pytest.mark.parametrize("when", ["before fn was called", "since fn was called"])
def test_a_thread_that_flushes_subnormal_numbers_is_refused(when):
    torch = pytest.importorskip("torch")

    def flushing(x):
        torch.set_flush_denormal(True)
        return x

    def measured_in_a_thread():  # the setting is the thread's
        if not torch.set_flush_denormal(True):
            return "this processor cannot: " + when
        torch.set_flush_denormal(when.startswith("before"))
        try:
            return str(measure(flushing, "linear", "bf16", arrays="numpy"))
        except UsageError as error:
            return str(error)

    with ThreadPoolExecutor(1) as pool:
        assert when in pool.submit(measured_in_a_thread).result()
