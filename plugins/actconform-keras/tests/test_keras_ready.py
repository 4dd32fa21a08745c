"""What Keras's programs get ready to be timed is what forward and vjp compute; all of it is asked of the device by name."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest

from actconform import Kernel, Program, Unsupported
from actconform.catalog.kernels import ROWS, UNARY
from actconform.catalog.models.zoo import PUBLISHED, networks
from actconform.testdata.model_tensors import draw_inputs, draw_parameters
from actconform_keras import KerasBackend
from actconform_keras.keras_module import keras_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from actconform import Model

    Arrays = dict[str, NDArray[Any]]

KERNELS = {kernel.name: kernel for kernel in UNARY + ROWS}
MODELS = {model.name: model for model in networks() if PUBLISHED not in model.name}
DTYPES: dict[str, Any] = {"f32": np.float32, "bf16": ml_dtypes.bfloat16}
ONE = {"loss": np.ones((), np.float32)}

pytestmark = pytest.mark.filterwarnings("ignore:You are using a softmax:UserWarning")


@pytest.fixture(scope="module", autouse=True)
def tf() -> Any:
    return KerasBackend()._framework()


class OnNamed(KerasBackend):
    """On the CPU as on a GPU: asked for by name, and waited for."""

    device = "/CPU:0"


def drawn(kernel: Kernel, dtype: str = "f32") -> Arrays:
    rng = np.random.default_rng(50)
    shape = (7, 6, 4) if kernel.axis == 1 else (5, 40)
    return {name: rng.uniform(-4, 4, shape if name == "x" else 40).astype(DTYPES[dtype]) for name in kernel.inputs}


def numbers(model: Model) -> Arrays:
    return {name: array.astype(np.float32) for name, array in {**draw_inputs(model), **draw_parameters(model)}.items()}


def check(program: Program, inputs: Arrays, wanted: Any, cotangents: Any = None) -> None:
    """What is computed, twice, is `wanted`, bit for bit and as tensors of the eager kind; what was given is as before."""
    given = {**inputs, **(cotangents or {})}
    before = {name: array.tobytes() for name, array in given.items()}
    once: Any = program.prepare_call(inputs, cotangents)
    for _ in range(2):
        outputs = once()
        assert list(outputs) == list(wanted)
        for name, array in wanted.items():
            assert keras_on("tensorflow").is_tensor(outputs[name])
            got = np.asarray(outputs[name].numpy())
            assert (got.dtype, got.shape) == (array.dtype, array.shape), name
            assert got.tobytes() == array.tobytes(), name
    assert {name: array.tobytes() for name, array in given.items()} == before


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_a_kernel_is_ready_as_it_is_called(kernel: Kernel, dtype: str) -> None:
    inputs, program = drawn(kernel, dtype), KerasBackend().build(kernel, dtype)
    y = program.forward(inputs)
    check(program, inputs, y)
    cotangents = {"y": np.ones_like(y["y"])}
    if kernel.differentiable:
        check(program, inputs, program.vjp(inputs, cotangents), cotangents)
    else:
        with pytest.raises(Unsupported, match="has no gradient, by declaration"):
            program.prepare_call(inputs, cotangents)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_model_is_ready_as_it_is_called(model: Model) -> None:
    inputs, program = numbers(model), KerasBackend().build_model(model, "f32")
    check(program, inputs, program.forward(inputs))
    check(program, inputs, program.vjp(inputs, ONE), ONE)


@pytest.fixture
def seen(tf: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which devices were asked for, and "waited" where they were waited for."""
    seen: list[str] = []
    original, wait = tf.device, tf.test.experimental.sync_devices

    @contextmanager
    def device(name: str | None) -> Iterator[None]:
        seen.append(str(name))
        with original(name):
            yield

    def waited() -> None:
        seen.append("waited")
        wait()

    monkeypatch.setattr(tf, "device", device)
    monkeypatch.setattr(tf.test.experimental, "sync_devices", waited)
    return seen


def test_a_kernel_is_computed_on_its_device_and_waited_for(seen: list[str]) -> None:
    kernel = KERNELS["gelu-erf"]
    inputs, program = drawn(kernel), OnNamed().build(kernel, "f32")
    once = program.prepare_call(inputs)
    assert seen == ["/CPU:0"]
    once()
    assert seen == ["/CPU:0", "/CPU:0", "waited"]
    plain = KerasBackend().build(kernel, "f32")
    np.testing.assert_array_equal(program.forward(inputs)["y"], plain.forward(inputs)["y"])
    cotangents = {"y": np.ones_like(inputs["x"])}
    seen.clear()
    pulled = program.vjp(inputs, cotangents)["d_x"]
    assert seen == ["/CPU:0", "/CPU:0", "/CPU:0", "waited"]
    np.testing.assert_array_equal(pulled, plain.vjp(inputs, cotangents)["d_x"])


def test_a_model_is_computed_on_its_device_and_waited_for(seen: list[str]) -> None:
    model = MODELS["attention-block"]
    inputs, program = numbers(model), OnNamed().build_model(model, "f32")
    plain = KerasBackend().build_model(model, "f32")
    for method, arguments in (("forward", (inputs,)), ("intermediates", (inputs,)), ("vjp", (inputs, ONE))):
        wanted = getattr(plain, method)(*arguments)
        seen.clear()
        got = getattr(program, method)(*arguments)
        assert set(seen) == {"/CPU:0", "waited"}
        assert seen.count("waited") == 1
        for name, array in wanted.items():
            np.testing.assert_array_equal(got[name], array, err_msg=name)


def test_on_the_cpu_no_device_is_asked_for(seen: list[str]) -> None:
    kernel = KERNELS["relu"]
    KerasBackend().build(kernel, "f32").prepare_call(drawn(kernel))()
    assert set(seen) == {"None"}
