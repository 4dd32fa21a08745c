"""What the processor offers, in the words of facts and deviations."""

from __future__ import annotations

import platform
from importlib import import_module

import pytest

from actconform.machine import cpu

AVX512 = ("AVX512F", "AVX512CD", "AVX512BW", "AVX512DQ", "AVX512VL")
HASWELL = ("SSE41", "SSE42", "AVX", "F16C", "FMA3", "AVX2")


@pytest.fixture
def offer(monkeypatch):
    """Have the processor of a machine offer what numpy and the C library tell of, by these names."""

    def offered(machine: str, numpy: tuple[str, ...], libc: tuple[str, ...] = ()) -> None:
        monkeypatch.setattr(platform, "machine", lambda: machine)
        monkeypatch.setattr(
            import_module("numpy._core._multiarray_umath"), "__cpu_features__", dict.fromkeys(numpy, True)
        )
        monkeypatch.setattr(cpu, "_of_libc", lambda: set(libc))
        cpu.cpu_features.cache_clear()

    yield offered
    monkeypatch.undo()
    cpu.cpu_features.cache_clear()


def kernel_says() -> set[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123  not a file of ours
            lines = [line for line in file if line.startswith(("flags", "Features"))]
    except FileNotFoundError:
        lines = []
    if not lines:
        pytest.skip("no flags in /proc/cpuinfo on this system")
    return set(lines[0].split())


def test_the_capability_of_this_machine_is_what_its_kernel_says():
    flags = kernel_says()
    if platform.machine() in cpu.ARM:
        assert cpu.cpu_capability() == ("SVE" if "sve" in flags else "NEON")
    elif platform.machine() not in cpu.X86:
        assert cpu.cpu_capability() == "DEFAULT"
    elif {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl", "fma"} <= flags:
        assert cpu.cpu_capability() == "AVX512"
    elif {"avx2", "fma"} <= flags:
        assert cpu.cpu_capability() == "AVX2"
    else:
        assert cpu.cpu_capability() == ("AVX" if "avx" in flags else "SSE")


@pytest.mark.skipif(platform.machine() not in cpu.X86, reason="features of x86")
@pytest.mark.parametrize(
    ("feature", "flag"),
    [
        ("AVX", "avx"),
        ("FMA3", "fma"),
        ("AVX2", "avx2"),
        ("AVX512F", "avx512f"),
        ("AVX512VNNI", "avx512_vnni"),
        ("AVX512BF16", "avx512_bf16"),
        ("AVX512FP16", "avx512_fp16"),
        ("AVX_VNNI", "avx_vnni"),
        ("AMX_TILE", "amx_tile"),
        ("AMX_BF16", "amx_bf16"),
        ("AMX_INT8", "amx_int8"),
    ],
)
def test_the_features_of_this_machine_are_those_that_its_kernel_lists(feature: str, flag: str):
    if feature.startswith(("AMX", "AVX_VNNI")) and platform.libc_ver()[0] != "glibc":
        pytest.skip("only glibc tells")
    assert (feature in cpu.cpu_features()) == (flag in kernel_says())


@pytest.mark.parametrize(
    ("machine", "names", "expected"),
    [
        ("x86_64", ("SSE", "SSE41", "SSE42"), "SSE"),
        ("x86_64", ("SSE41", "SSE42", "AVX"), "AVX"),
        ("x86_64", ("SSE42", "AVX", "AVX2"), "AVX"),  # no FMA, as in some emulators
        ("AMD64", HASWELL, "AVX2"),
        ("x86_64", (*HASWELL, "AVX512F", "AVX512CD"), "AVX2"),
        ("x86_64", (*HASWELL, *AVX512), "AVX512"),
        ("aarch64", ("NEON", "ASIMD", "ASIMDDP"), "NEON"),
        ("arm64", ("NEON", "ASIMD", "SVE"), "SVE"),
        ("armv7l", ("NEON",), "NEON"),
        ("ppc64le", ("VSX", "VSX2"), "DEFAULT"),
        ("x86_64", (), "SSE"),
    ],
)
def test_the_capability_is_the_widest_that_is_offered(offer, machine: str, names: tuple[str, ...], expected: str):
    offer(machine, names)
    assert cpu.cpu_capability() == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("x86_64", HASWELL, ()), ("x86_64", ("SSE41", "SSE42", "AVX", "F16C", "AVX2"), ())),
        (("x86_64", (*HASWELL, *AVX512), ()), ("x86_64", (*HASWELL, *AVX512, "AVX512VNNI"), ())),
        (("x86_64", (*HASWELL, *AVX512), ()), ("x86_64", (*HASWELL, *AVX512, "AVX512FP16"), ())),
        (("x86_64", (*HASWELL, *AVX512), ()), ("x86_64", (*HASWELL, *AVX512), ("AMX_TILE", "AMX_BF16"))),
        (("x86_64", HASWELL, ()), ("x86_64", HASWELL, ("AVX_VNNI",))),
        (("aarch64", ("NEON", "ASIMD"), ()), ("aarch64", ("NEON", "ASIMD", "ASIMDDP"), ())),
        (("aarch64", ("ASIMD", "SVE"), ("SVE_128",)), ("aarch64", ("ASIMD", "SVE"), ("SVE_256",))),
        (("aarch64", ("ASIMD", "SVE"), ()), ("aarch64", ("ASIMD", "SVE"), ("SVE2",))),
    ],
    ids=lambda offered: "+".join((*offered[1][-1:], *offered[2])),
)
def test_processors_that_compute_otherwise_have_other_features(offer, one, other):
    told = []
    for processor in (one, other):
        offer(*processor)
        told.append(cpu.cpu_features())
    assert told[0] != told[1]
    assert all(features == tuple(sorted(set(features))) for features in told)


def test_what_no_numeric_library_chooses_code_by_is_left_out(offer):
    offer("x86_64", ("MMX", "POPCNT", "X86_V2", "SSE42"))
    assert cpu.cpu_features() == ("SSE42",)


@pytest.mark.parametrize(
    ("highest", "offered", "expected"),
    [
        ("AVX2", (*HASWELL, *AVX512), "AVX2"),
        ("SSE", (*HASWELL, *AVX512), "SSE"),
        ("AVX512", HASWELL, "AVX2"),
        ("AVX", ("SSE42",), "SSE"),
    ],
)
def test_a_setting_lowers_the_capability_and_never_raises_it(offer, highest: str, offered, expected: str):
    offer("x86_64", offered)
    assert cpu.cpu_capability(highest) == expected


def test_off_x86_there_is_nothing_to_lower(offer):
    offer("aarch64", ("NEON", "ASIMD"))
    assert cpu.cpu_capability("SSE") == "NEON"


def test_a_c_library_that_does_not_tell_leaves_what_numpy_does(offer, monkeypatch):
    class Old:
        def __getitem__(self, name: str) -> None:
            raise AttributeError(name)

    found = cpu._of_libc_on_x86(Old())
    assert found == set()


@pytest.mark.parametrize(
    ("vectors", "expected"), [(-1, {"BF16", "I8MM"}), (32, {"BF16", "I8MM", "SVE_256"})], ids=["no SVE", "SVE"]
)
def test_on_arm_the_c_library_hands_on_what_linux_says(vectors: int, expected: set[str]):
    class Function:
        def __init__(self, value: int) -> None:
            self.value = value

        def __call__(self, *_: int) -> int:
            return self.value

    class Libc:
        getauxval, prctl = Function(1 << 13 | 1 << 14), Function(vectors)

    assert cpu._of_libc_on_arm(Libc()) == expected
