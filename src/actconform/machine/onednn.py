"""oneDNN, which torch, TensorFlow, OpenVINO and XLA compute with: at which instruction set, and with which settings."""

from __future__ import annotations

import os
import platform
import re
import sys
import tempfile
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from actconform.machine.cpu import X86, cpu_capability, level_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

_MAX_ISA = "MAX_CPU_ISA"
_SETTINGS = (_MAX_ISA, "CPU_ISA_HINTS", "DEFAULT_FPMATH_MODE")  # those that change what is computed
_PREFIXES = ("ONEDNN_", "DNNL_")  # the first goes before the second


def onednn_capability() -> str:
    """Return `cpu_capability` lowered by oneDNN's own variable, ONEDNN_MAX_CPU_ISA or DNNL_MAX_CPU_ISA."""
    return cpu_capability(level_of(_variable(_MAX_ISA)))


def onednn_level() -> str:
    """Return "AVX512", "AVX2" or "DEFAULT", at which oneDNN works here by its variable and the processor; "none" off x86."""
    if platform.machine() not in X86:
        return "none"
    level = onednn_capability()
    return level if level in ("AVX512", "AVX2") else "DEFAULT"


def onednn_settings() -> str:
    """Return the variables that set what oneDNN computes with, as "ONEDNN_MAX_CPU_ISA=AVX2", or "none"."""
    settings = [f"{_PREFIXES[0]}{name}={_variable(name)}" for name in _SETTINGS if _variable(name)]
    return " ".join(settings) or "none"


def onednn_facts() -> dict[str, str]:
    """Return the facts of a oneDNN that has no interface to read them: what it may use of the processor, and its settings."""
    return {"cpu_capability": onednn_capability(), "onednn_settings": onednn_settings()}


def onednn_in_torch(torch: ModuleType) -> dict[str, str]:
    """Return the facts of the oneDNN in torch: its level, what it says of itself, and its settings; level and words are "off" without it."""
    used = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
    level, isa = (onednn_level(), onednn_isa(torch)) if used else ("off", "off")
    return {"onednn": level, "onednn_isa": isa, "onednn_settings": onednn_settings()}


@cache
def onednn_isa(torch: ModuleType) -> str:
    """Return the instruction set that torch's oneDNN says it works with, in its own words; "unsaid" where it says nothing.

    oneDNN says it once in a process, in its verbose mode, on standard output, which is caught meanwhile.
    """
    mkldnn: Any = torch.backends.mkldnn
    # torch asserts where its build has no verbose mode
    with _standard_output() as printed, suppress(AssertionError), mkldnn.verbose(mkldnn.VERBOSE_ON):
        torch.zeros(1, 1).to_mkldnn()
    match = re.search(r"info,cpu,isa:(.+)", "".join(printed))
    return match[1].strip() if match else "unsaid"


def _variable(name: str) -> str:
    return next((value for prefix in _PREFIXES if (value := os.environ.get(prefix + name))), "").upper()


@contextmanager
def _standard_output() -> Iterator[list[str]]:
    """Catch what native code prints to standard output; the list has it when the context is left."""
    printed: list[str] = []
    sys.stdout.flush()
    with tempfile.TemporaryFile() as file:
        before = os.dup(1)
        os.dup2(file.fileno(), 1)
        try:
            yield printed
        finally:
            os.dup2(before, 1)
            os.close(before)
            file.seek(0)
            printed.append(file.read().decode(errors="replace"))
