"""torch-cuda without a GPU: each way in which it can be missing is told; with one, it computes there."""

from __future__ import annotations

import subprocess
import sys
import types
from typing import Any

import numpy as np
import pytest

from actconform import Case, Unavailable
from actconform.catalog.kernels import UNARY
from actconform.machine.gpu import first_gpu
from actconform_torch import TorchCuda, cuda
from actconform_torch import torch_module as module

GPU = {"device": "NVIDIA Fake", "compute_capability": "9.0", "memory": "81920 MiB", "cuda_driver": "13.0"}
RELU = next(kernel for kernel in UNARY if kernel.name == "relu")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver with a device."""
    monkeypatch.setattr(cuda, "first_gpu", lambda: dict(GPU))


@pytest.fixture
def cuda_build(gpu: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A torch built with CUDA 13.0, whose device is the CPU."""
    torch = module.import_torch()
    monkeypatch.setattr(torch, "__version__", "2.13.0+cu130")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91300)
    monkeypatch.setattr(TorchCuda, "device", "cpu")
    return torch


def test_no_run_needs_it_and_it_names_itself() -> None:
    assert (TorchCuda.name, TorchCuda.kind, TorchCuda.optional) == ("torch-cuda", "framework", True)
    refused = TorchCuda().supports(Case("relu", "value", "f64", "torch-cuda"))
    assert refused.reason == "torch-cuda runs f32, f16, bf16 here, not f64"


def test_without_a_driver_nothing_is_imported_to_say_so() -> None:
    code = (
        "import sys, actconform, actconform_torch.cuda as cuda\n"
        "def none(): raise actconform.Unavailable('no NVIDIA driver')\n"
        "cuda.first_gpu = none\n"
        "try: cuda.TorchCuda().facts()\n"
        "except actconform.Unavailable as error: print(error, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "no NVIDIA driver False"


def test_a_build_without_cuda_is_named_with_the_mend(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = module.import_torch()
    monkeypatch.setattr(torch, "__version__", "2.13.0+cpu")
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(Unavailable, match=r"^torch 2.13.0\+cpu is built without CUDA: pip install torch from an index"):
        TorchCuda().facts()


def test_what_torch_cannot_do_with_the_device_is_told_in_its_words(
    cuda_build: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).\nPlease update")

    monkeypatch.setattr(cuda_build.cuda, "init", init)
    words = (
        r"^torch 2.13.0\+cu130 \(CUDA 13.0\) cannot use NVIDIA Fake: The NVIDIA driver .* \(found version 11040\)\.$"
    )
    with pytest.raises(Unavailable, match=words):
        TorchCuda().facts()


@pytest.mark.parametrize(("on", "word"), [(True, "on"), (False, "off")])
def test_facts_name_the_device_and_how_it_computes(
    cuda_build: Any, monkeypatch: pytest.MonkeyPatch, on: bool, word: str
) -> None:
    switches = types.SimpleNamespace(allow_tf32=on, benchmark=on, version=lambda: 91300)
    monkeypatch.setattr(cuda_build.backends, "cudnn", switches)
    monkeypatch.setattr(cuda_build.backends.cuda, "matmul", switches)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    facts = TorchCuda().facts()
    assert facts == facts | GPU
    assert (facts["torch"], facts["cuda"], facts["cudnn"]) == ("2.13.0+cu130", "13.0", "91300")
    assert [facts[name] for name in ("tf32_matmul", "tf32_cudnn", "cudnn_benchmark")] == [word] * 3
    assert facts["tf32_override"] == "0"
    assert facts["subnormals"] in ("kept", "flushed")
    assert all(type(fact) is str for fact in facts.values())


def test_on_this_machine_it_computes_on_the_gpu_or_says_why_not() -> None:
    try:
        facts = TorchCuda().facts()
    except Unavailable as unavailable:
        pytest.skip(f"needs a GPU: {unavailable}")
    assert facts["device"] == first_gpu()["device"]
    program = TorchCuda().build(RELU, "f32")
    x = np.array([-1.0, 2.0], np.float32)
    outputs: Any = program.prepare_call({"x": x})()
    assert outputs["y"].device.type == "cuda"
    np.testing.assert_array_equal(program.forward({"x": x})["y"], [0.0, 2.0])
    np.testing.assert_array_equal(program.vjp({"x": x}, {"y": np.ones_like(x)})["d_x"], [0.0, 1.0])
