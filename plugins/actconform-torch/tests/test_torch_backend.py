"""The torch backend's facts, refusals and tensors; the plugin's hooks."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from typing import Any

import ml_dtypes
import numpy as np
import pluggy
import pytest

from actconform import Case, Kernel, Unavailable, Unsupported
from actconform.catalog.kernels import ROWS, UNARY
from actconform.plugin import hookspecs
from actconform.verdict.causes.check import check_formulas
from actconform_torch import TorchBackend, TorchCompile, TorchCuda, plugin
from actconform_torch import torch_module as module

LINEAR = next(kernel for kernel in UNARY if kernel.name == "linear")
RELU = next(kernel for kernel in UNARY if kernel.name == "relu")


@pytest.fixture(scope="module", autouse=True)
def torch() -> Any:
    return module.import_torch()


def test_facts_are_words_that_could_explain_a_number(torch: Any) -> None:
    facts = TorchBackend().facts()
    assert facts["torch"] == torch.__version__
    assert facts["numpy"] == np.__version__
    assert facts["device"] == "cpu"
    assert facts["threads"] == str(torch.get_num_threads())
    assert facts["subnormals"] in ("kept", "flushed")
    assert facts["onednn"] in ("AVX512", "AVX2", "DEFAULT", "none", "off")
    assert facts["cpu_capability"]
    assert facts["onednn_settings"]
    assert all(type(word) is str for word in facts.values())


@pytest.mark.skipif(platform.machine() != "x86_64", reason="instruction sets of x86-64")
def test_onednn_says_itself_which_instructions_it_uses() -> None:
    text = "from actconform_torch import TorchBackend; f = TorchBackend().facts(); print(f['onednn'], f['onednn_settings'], f['onednn_isa'])"
    env = {**os.environ, "ONEDNN_MAX_CPU_ISA": "SSE41"}
    done = subprocess.run([sys.executable, "-c", text], env=env, capture_output=True, text=True, check=True)
    # once, by us: its verbose mode is off again and what it printed is no output of the process
    assert done.stdout == "DEFAULT ONEDNN_MAX_CPU_ISA=SSE41 Intel SSE4.1\n"


def test_without_onednn_there_is_nothing_to_ask(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    facts = TorchBackend().facts()
    assert (facts["onednn"], facts["onednn_isa"]) == ("off", "off")


def test_flushed_subnormals_are_seen(torch: Any) -> None:
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormals")
    try:
        assert TorchBackend().facts()["subnormals"] == "flushed"
    finally:
        torch.set_flush_denormal(False)
    assert TorchBackend().facts()["subnormals"] == "kept"


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (Case("relu", "value", "f32", "torch"), ""),
        (Case("a-model-of-a-plugin", "value", "f32", "torch"), ""),
        (Case("relu", "value", "f64", "torch"), "torch runs f32, f16, bf16 here, not f64"),
    ],
)
def test_supports_says_why_not(case: Case, reason: str) -> None:
    support = TorchBackend().supports(case)
    assert (support.yes, support.reason) == (not reason, reason)


def test_bf16_bits_survive_the_round_trip() -> None:
    bits = np.arange(65536, dtype=np.uint16)
    program = TorchBackend().build(LINEAR, "bf16")
    y = program.forward({"x": bits.view(ml_dtypes.bfloat16)})["y"]
    np.testing.assert_array_equal(y.view(np.uint16), bits)
    d = program.vjp({"x": y}, {"y": bits.view(ml_dtypes.bfloat16)})["d_x"]
    np.testing.assert_array_equal(d.view(np.uint16), bits)


def test_what_comes_back_does_not_follow_what_was_given() -> None:
    x, g = np.ones(4, np.float32), np.ones(4, np.float32)
    program = TorchBackend().build(LINEAR, "f32")
    y, d = program.forward({"x": x})["y"], program.vjp({"x": x}, {"y": g})["d_x"]
    x[:] = g[:] = 9.0
    np.testing.assert_array_equal([y, d], np.ones((2, 4)))


@pytest.mark.filterwarnings("error")
def test_read_only_strided_and_scalar_arrays_are_taken() -> None:
    program = TorchBackend().build(RELU, "f32")
    frozen = np.array([-1.0, 2.0], np.float32)
    frozen.setflags(write=False)
    np.testing.assert_array_equal(program.forward({"x": frozen})["y"], [0.0, 2.0])
    backwards = np.array([-1.0, 2.0, 3.0], np.float32)[::-1]
    np.testing.assert_array_equal(program.forward({"x": backwards})["y"], [3.0, 2.0, 0.0])
    assert program.forward({"x": np.array(2.0, np.float32)})["y"].shape == ()


def test_a_missing_dtype_is_a_refusal_and_a_fault_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("\"relu_cpu\" not implemented for 'Half'\nand a trace")

    program = TorchBackend().build(RELU, "f16")
    monkeypatch.setattr(program, "_function", refuse)
    with pytest.raises(Unsupported, match=r"^\"relu_cpu\" not implemented for 'Half'$"):
        program.forward({"x": np.ones(3, np.float16)})
    prelu = next(kernel for kernel in ROWS if kernel.name == "prelu")
    wrong = {"x": np.ones((2, 3), np.float32), "slope": np.ones(2, np.float32)}
    with pytest.raises(RuntimeError, match=r"weight|parameter"):
        TorchBackend().build(prelu, "f32").forward(wrong)


def test_without_torch_the_backend_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    module.import_torch.cache_clear()
    with pytest.raises(Unavailable, match=r"torch is not installed: pip install actconform\[torch\]"):
        TorchBackend().facts()
    with pytest.raises(Unavailable, match="torch is not installed"):
        TorchBackend().build(Kernel(name="relu", definition="", source=""), "f32")


def test_importing_the_plugin_imports_no_framework() -> None:
    code = "import sys, actconform_torch; actconform_torch.plugin.actconform_causes();print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_hooks_offer_the_backends_and_their_causes() -> None:
    manager = pluggy.PluginManager("actconform")
    manager.add_hookspecs(hookspecs)
    manager.register(plugin)
    manager.check_pending()
    assert manager.hook.actconform_backends() == [[TorchBackend, TorchCompile, TorchCuda]]
    ((register,),) = manager.hook.actconform_causes()
    assert register.causes
    check_formulas(register, {kernel.name: kernel for kernel in UNARY + ROWS})
