"""Trained models out of wheels, as factories of (module, example inputs) that take what the ONNX file beside them takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from benchmarks.architecture_models import PACKAGES, SILERO
from benchmarks.torch_architectures import drawn

if TYPE_CHECKING:
    from torch import Tensor

    Named = dict[str, Tensor]


class Detector(nn.Module):
    """The detector of speech at 16 kHz with its state as input and output; the TorchScript file keeps it to itself."""

    def __init__(self, scripted: Any) -> None:
        super().__init__()
        self.network = scripted._model  # noqa: SLF001  the network for 16 kHz; the file has another for 8 kHz

    def forward(self, input: Tensor, state: Tensor, sr: Tensor) -> tuple[Tensor, Tensor]:  # noqa: A002, ARG002  names of the ONNX file's inputs
        spectrum = self.network.run_extractors(input)
        scores, fresh = self.network.decoder(self.network.encoder(spectrum), state)
        return scores.squeeze(1).mean(1, keepdim=True), fresh


def silero() -> tuple[nn.Module, Named]:
    """silero-vad from its TorchScript file."""
    path = Path(PACKAGES).with_name("published") / SILERO / "silero_vad.jit"
    scripted = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    example = {"input": 0.3 * drawn(2, 576), "state": drawn(2, 2, 128), "sr": torch.tensor(16000)}
    return Detector(scripted).eval(), example
