"""The torch backends of actconform: the kernels as PyTorch computes them, values and gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform import hookimpl
from actconform_torch.backend import TorchBackend
from actconform_torch.compiled import TorchCompile
from actconform_torch.cuda import TorchCuda
from actconform_torch.exporters import TorchDynamo, TorchScript

if TYPE_CHECKING:
    from actconform import Backend, Exporter, Register


class TorchPlugin:
    """What this package offers to actconform."""

    @hookimpl
    def actconform_backends(self) -> list[type[Backend]]:
        return [TorchBackend, TorchCompile, TorchCuda]

    @hookimpl
    def actconform_exporters(self) -> list[type[Exporter]]:
        return [TorchDynamo, TorchScript]

    @hookimpl
    def actconform_causes(self) -> tuple[Register, ...]:
        from actconform import register_of  # a worker needs the backend alone

        return (register_of(__name__),)


plugin = TorchPlugin()

__all__ = ["TorchBackend", "TorchCompile", "TorchCuda", "TorchDynamo", "TorchPlugin", "TorchScript", "plugin"]
