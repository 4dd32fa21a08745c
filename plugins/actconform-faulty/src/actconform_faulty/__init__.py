"""Injected faults: what actconform must find, with class and blame, and what it is measured by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform import hookimpl
from actconform_faulty.backends import (
    FaultyExport,
    FaultyOrt,
    FaultyTorch,
    UnusualExport,
    UnusualFlushing,
    UnusualOrt,
    UnusualTorch,
)
from actconform_faulty.injected import INJECTED
from actconform_faulty.model_runtime import FaultyModel

if TYPE_CHECKING:
    from actconform import Backend, Exporter, Fault


class FaultyPlugin:
    """What this package offers to actconform."""

    @hookimpl
    def actconform_backends(self) -> list[type[Backend]]:
        return [FaultyTorch, FaultyOrt, FaultyModel, UnusualTorch, UnusualFlushing, UnusualOrt]

    @hookimpl
    def actconform_exporters(self) -> list[type[Exporter]]:
        return [FaultyExport, UnusualExport]

    @hookimpl
    def actconform_faults(self) -> list[Fault]:
        return [injected.fault for injected in INJECTED.values()]


plugin = FaultyPlugin()

__all__ = ["FaultyExport", "FaultyModel", "FaultyOrt", "FaultyPlugin", "FaultyTorch", "plugin"]
