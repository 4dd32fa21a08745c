"""What the processor offers, in the words of facts and deviations."""

from __future__ import annotations

import platform

import numpy as np
import pytest

from actconform import cpu


def offer(monkeypatch, *names: str) -> None:
    simd = {"SIMD Extensions": {"baseline": list(names[:1]), "found": list(names[1:])}}
    monkeypatch.setattr(np, "show_config", lambda mode: simd)


def test_the_capability_of_this_machine_is_one_of_three_words():
    assert cpu.cpu_capability() in ("DEFAULT", "AVX2", "AVX512")
    assert cpu.onednn_level() in ("none", "DEFAULT", "AVX2", "AVX512")


def test_the_capability_of_this_machine_is_what_its_kernel_says():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123  not a file of ours
            flags = set(next((line for line in file if line.startswith("flags")), "").split())
    except FileNotFoundError:
        pytest.skip("no /proc/cpuinfo on this system")
    if platform.machine() != "x86_64":
        assert cpu.cpu_capability() == "DEFAULT"
    elif {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"} <= flags:
        assert cpu.cpu_capability() == "AVX512"
    elif {"avx2", "fma"} <= flags:
        assert cpu.cpu_capability() == "AVX2"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("SSE", "SSE2"), "DEFAULT"),
        (("SSE", "SSE42", "AVX", "FMA3", "AVX2"), "AVX2"),
        (("SSE", "AVX2", "AVX512F", "AVX512_SKX"), "AVX512"),
        (("X86_V2", "X86_V3"), "AVX2"),
        (("X86_V2", "X86_V3", "X86_V4", "AVX512_ICL"), "AVX512"),
        (("NEON", "ASIMD", "SVE"), "DEFAULT"),
        ((), "DEFAULT"),
    ],
)
def test_the_capability_is_read_from_what_numpy_found(names: tuple[str, ...], expected: str, monkeypatch):
    offer(monkeypatch, *names)
    assert cpu.cpu_capability() == expected


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        ("", "AVX512"),
        ("ALL", "AVX512"),
        ("DEFAULT", "AVX512"),
        ("SSE41", "DEFAULT"),
        ("AVX", "DEFAULT"),
        ("avx2", "AVX2"),
        ("AVX2_VNNI_2", "AVX2"),
        ("AVX512_CORE", "AVX512"),
        ("AVX512_CORE_AMX_FP16", "AVX512"),
        ("AVX10_1_512", "AVX512"),
        ("AVX10_1_512_AMX", "AVX512"),
    ],
)
def test_onednn_works_at_the_level_that_its_variable_allows(allowed: str, expected: str, monkeypatch):
    offer(monkeypatch, "SSE", "AVX2", "AVX512F")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", allowed)
    assert cpu.onednn_level() == expected


def test_onednn_works_at_no_higher_level_than_the_processor_offers(monkeypatch):
    offer(monkeypatch, "SSE", "AVX2")
    monkeypatch.setattr(platform, "machine", lambda: "AMD64")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    assert cpu.onednn_level() == "AVX2"
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")
    assert cpu.onednn_level() == "AVX2"


def test_off_x86_there_is_no_level(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert cpu.onednn_level() == "none"
