"""The torch backend's facts and refusals."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from actconform import Unsupported
from actconform.catalog.kernels import ROWS, UNARY
from actconform_torch import TorchBackend
from actconform_torch import torch_module as module

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
