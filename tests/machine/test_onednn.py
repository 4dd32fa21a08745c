"""At which instruction set oneDNN works, by its own variables and by its own words."""

from __future__ import annotations

import os
import platform
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from actconform.machine import cpu, onednn


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in ("MAX_CPU_ISA", "CPU_ISA_HINTS", "DEFAULT_FPMATH_MODE"):
        monkeypatch.delenv(f"ONEDNN_{name}", raising=False)
        monkeypatch.delenv(f"DNNL_{name}", raising=False)


def offer(monkeypatch, machine: str, level: str) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(cpu, "_level", lambda offered: level)


@pytest.mark.parametrize(
    ("allowed", "capability", "level"),
    [
        ("", "AVX512", "AVX512"),
        ("ALL", "AVX512", "AVX512"),
        ("DEFAULT", "AVX512", "AVX512"),
        ("SSE41", "SSE", "DEFAULT"),
        ("AVX", "AVX", "DEFAULT"),
        ("avx2", "AVX2", "AVX2"),
        ("AVX2_VNNI_2", "AVX2", "AVX2"),
        ("AVX512_CORE", "AVX512", "AVX512"),
        ("AVX512_CORE_AMX_FP16", "AVX512", "AVX512"),
        ("AVX10_1_512", "AVX512", "AVX512"),
        ("AVX10_1_512_AMX", "AVX512", "AVX512"),
    ],
)
@pytest.mark.parametrize("variable", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
def test_onednn_works_at_the_level_that_its_variable_allows(variable, allowed, capability, level, monkeypatch):
    offer(monkeypatch, "x86_64", "AVX512")
    monkeypatch.setenv(variable, allowed)
    assert (onednn.onednn_capability(), onednn.onednn_level()) == (capability, level)


def test_onednn_works_at_no_higher_level_than_the_processor_offers(monkeypatch):
    offer(monkeypatch, "AMD64", "AVX2")
    assert onednn.onednn_level() == "AVX2"
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")
    assert onednn.onednn_level() == "AVX2"


def test_off_x86_there_is_no_level(monkeypatch):
    offer(monkeypatch, "arm64", "")
    assert onednn.onednn_level() == "none"
    assert onednn.onednn_capability() in ("NEON", "SVE", "DEFAULT")


def test_settings_that_change_what_is_computed_are_told(monkeypatch):
    assert onednn.onednn_settings() == "none"
    monkeypatch.setenv("ONEDNN_VERBOSE", "1")
    monkeypatch.setenv("DNNL_DEFAULT_FPMATH_MODE", "bf16")
    assert onednn.onednn_settings() == "ONEDNN_DEFAULT_FPMATH_MODE=BF16"
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "avx")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")  # goes before
    assert onednn.onednn_settings() == "ONEDNN_MAX_CPU_ISA=AVX2 ONEDNN_DEFAULT_FPMATH_MODE=BF16"


class Torch:
    """The least of a torch with oneDNN in it, which prints to the descriptor of standard output when it computes."""

    def __init__(self, text: str, *, speaks: bool = True) -> None:
        self.text, self.asked = text, 0
        self.backends = SimpleNamespace(
            mkldnn=SimpleNamespace(is_available=lambda: True, enabled=True, VERBOSE_ON=1, verbose=self.verbose)
        )
        self.speaks = speaks

    @contextmanager
    def verbose(self, level):
        assert level == 1
        assert self.speaks, "Failed to set MKLDNN into verbose mode"
        yield

    def zeros(self, *_: int):
        self.asked += 1
        return SimpleNamespace(to_mkldnn=lambda: os.write(1, self.text.encode()))


INFO = (
    "onednn_verbose,v1,info,cpu,runtime:OpenMP,nthr:2\nonednn_verbose,v1,info,cpu,isa:Intel AVX2 with Intel DL Boost\n"
)


def test_what_onednn_says_of_itself_is_read_once_and_shown_to_nobody(capfd):
    torch = Torch(INFO)
    assert onednn.onednn_isa(torch) == onednn.onednn_isa(torch) == "Intel AVX2 with Intel DL Boost"
    assert torch.asked == 1
    os.write(1, b"after\n")
    assert capfd.readouterr().out == "after\n"


@pytest.mark.parametrize(
    "torch", [Torch("nothing of the kind\n"), Torch(INFO, speaks=False)], ids=["silent", "refuses"]
)
def test_where_onednn_says_nothing_it_is_unsaid(torch):
    assert onednn.onednn_isa(torch) == "unsaid"


def test_a_torch_that_does_not_use_onednn_is_not_asked(monkeypatch):
    torch = Torch(INFO)
    torch.backends.mkldnn.enabled = False
    assert onednn.onednn_in_torch(torch) == {"onednn": "off", "onednn_isa": "off", "onednn_settings": "none"}
    assert torch.asked == 0
