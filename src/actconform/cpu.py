"""What the processor offers, in the words that facts and deviations use."""

from __future__ import annotations

import os
import platform

import numpy as np

LEVELS = ("DEFAULT", "AVX2", "AVX512")


def cpu_capability() -> str:
    """Return "AVX512", "AVX2" or "DEFAULT", the names that torch uses, from what numpy found in the processor."""
    simd = np.show_config(mode="dicts")["SIMD Extensions"]
    names = " ".join([*simd.get("baseline", ()), *simd.get("found", ())])
    if "AVX512" in names or "X86_V4" in names:
        return "AVX512"
    return "AVX2" if "AVX2" in names or "X86_V3" in names else "DEFAULT"


def onednn_level() -> str:
    """Return the level at which oneDNN works here: the processor's, lowered by ONEDNN_MAX_CPU_ISA; "none" off x86."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return "none"
    wanted = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    allowed = next((level for level in reversed(LEVELS) if wanted.startswith(level)), "DEFAULT") if wanted else "AVX512"
    if wanted in ("ALL", "DEFAULT") or wanted.startswith("AVX10") or "AMX" in wanted:
        allowed = "AVX512"
    return min(allowed, cpu_capability(), key=LEVELS.index)
