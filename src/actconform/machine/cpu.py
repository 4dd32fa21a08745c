"""What the processor offers, read in the process that computes: a driver and its workers may see different processors."""

from __future__ import annotations

import ctypes
import platform
import re
from functools import cache
from importlib import import_module
from pathlib import Path

LEVELS = ("SSE", "AVX", "AVX2", "AVX512")  # of x86, the lowest first

X86 = ("x86_64", "AMD64")
ARM = ("aarch64", "arm64")

# Those that numeric libraries choose code by, in numpy's names.
_ASKED_OF_NUMPY = (
    *("SSE41", "SSE42", "AVX", "F16C", "FMA3", "AVX2", "AVX512F", "AVX512CD", "AVX512BW", "AVX512DQ", "AVX512VL"),
    *("AVX512VNNI", "AVX512BF16", "AVX512FP16", "NEON", "ASIMD", "FPHP", "ASIMDHP", "ASIMDDP", "ASIMDFHM", "SVE"),
    *("VSX", "VSX2", "VSX3", "VSX4", "VX", "VXE", "VXE2", "RVV", "LSX"),
)
_ASKED_FOR_AVX512 = {"AVX512F", "AVX512CD", "AVX512BW", "AVX512DQ", "AVX512VL", "FMA3"}

# numpy does not look for all of them. The C library does: where each stands in glibc's sys/platform/x86.h, as the index of
# the leaf, the register (EAX, EBX, ECX, EDX) and the bit; for ARM the bits of AT_HWCAP2, in Linux's asm/hwcap.h.
_BITS_OF_X86 = {
    "AMX_BF16": (1, 3, 22),
    "AVX512FP16": (1, 3, 23),
    "AMX_TILE": (1, 3, 24),
    "AMX_INT8": (1, 3, 25),
    "AVX_VNNI": (6, 0, 4),
    "AVX512BF16": (6, 0, 5),
    "AMX_FP16": (6, 0, 21),
    "AVX_VNNI_INT8": (6, 3, 4),
    "AVX_NE_CONVERT": (6, 3, 5),
}
_BITS_OF_ARM = {"SVE2": 1, "I8MM": 13, "BF16": 14, "SME": 23, "SME2": 37}
_AT_HWCAP2 = 26
_PR_SVE_GET_VL = 51
_SVE_BYTES = 0xFFFF  # of what that says


@cache
def cpu_features() -> tuple[str, ...]:
    """Return the instruction sets that this process may use and numeric libraries choose code by, sorted.

    The names are numpy's and the C library's: "AVX2", "AVX512FP16", "AMX_BF16", "ASIMD", "SVE2"; "SVE_256" is the length of
    SVE's vectors in bits. What numpy does not look for is lacking where the C library has no answer: before glibc 2.33 on x86, off Linux.
    """
    return tuple(sorted(_of_numpy() | _of_libc()))


def cpu_name() -> str:
    """Return the processor's name as Linux has it, "Intel(R) Xeon(R) Platinum 8481C"; elsewhere what Python knows of it."""
    try:
        match = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        match = None
    return match[1] if match else platform.processor() or platform.machine()


def cpu_capability(highest: str = "AVX512") -> str:
    """Return the widest instruction set that the processor offers, in one word.

    On x86 one of LEVELS, no higher than `highest`, to which a library's setting lowers it: "AVX512" is F, CD, BW, DQ, VL and FMA,
    "AVX2" has FMA too, as in torch's words. Elsewhere "NEON", "SVE", or "DEFAULT" for what has no word here.
    """
    offered = set(cpu_features())
    if platform.machine() in X86:
        return min(_level(offered), highest, key=LEVELS.index)
    if "SVE" in offered:
        return "SVE"
    return "NEON" if offered & {"ASIMD", "NEON"} else "DEFAULT"


def level_of(isa: str) -> str:
    """Return the level of LEVELS that an instruction set belongs to, by the name that a setting of oneDNN or XLA has for it.

    "" and names that stand for everything, such as oneDNN's "ALL", are the highest.
    """
    isa = isa.upper()
    if isa.startswith("SSE"):
        return "SSE"
    return "AVX2" if isa.startswith("AVX2") else "AVX" if isa == "AVX" else "AVX512"


def _level(offered: set[str]) -> str:
    if offered >= _ASKED_FOR_AVX512:
        return "AVX512"
    if offered >= {"AVX2", "FMA3"}:
        return "AVX2"
    return "AVX" if "AVX" in offered else "SSE"


def _of_numpy() -> set[str]:
    # numpy.show_config tells only what numpy itself has code for, in groups of its own: no FP16 apart from the rest
    offered: dict[str, bool] = import_module("numpy._core._multiarray_umath").__cpu_features__
    return {name for name in _ASKED_OF_NUMPY if offered.get(name)}


def _of_libc() -> set[str]:
    if platform.system() != "Linux":
        return set()
    libc = ctypes.CDLL(None)
    if platform.machine() in X86:
        return _of_libc_on_x86(libc)
    return _of_libc_on_arm(libc) if platform.machine() in ARM else set()


class _Leaf(ctypes.Structure):
    """glibc's struct cpuid_feature: four registers as the processor has them, and what of them may be used."""

    _fields_ = (("offered", ctypes.c_uint32 * 4), ("usable", ctypes.c_uint32 * 4))


def _of_libc_on_x86(libc: ctypes.CDLL) -> set[str]:
    try:
        leaf = libc["__x86_get_cpuid_feature_leaf"]
    except AttributeError:  # older than glibc 2.33, or another C library
        return set()
    leaf.argtypes, leaf.restype = [ctypes.c_uint], ctypes.POINTER(_Leaf)
    return {name for name, (index, register, bit) in _BITS_OF_X86.items() if leaf(index)[0].usable[register] >> bit & 1}


def _of_libc_on_arm(libc: ctypes.CDLL) -> set[str]:
    libc.getauxval.argtypes, libc.getauxval.restype = [ctypes.c_ulong], ctypes.c_ulong
    offered = libc.getauxval(_AT_HWCAP2)
    vectors = libc.prctl(_PR_SVE_GET_VL, 0, 0, 0, 0)  # negative without SVE
    return {name for name, bit in _BITS_OF_ARM.items() if offered >> bit & 1} | (
        {f"SVE_{8 * (vectors & _SVE_BYTES)}"} if vectors > 0 else set()
    )
