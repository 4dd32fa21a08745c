"""Architectures in torch as people write them, each a factory of (module, example inputs); weights are random by a fixed seed.

Statistics of BatchNorm are those of a batch of random inputs, gains and biases lie around one and zero: nothing is left at the values
in which a wrong layer cannot be told from a right one.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  everybody calls it so

if TYPE_CHECKING:
    from collections.abc import Sequence

SEED = 18

Example = tuple[Tensor, ...]


def settled(module: nn.Module, *example: Tensor, seed: int = SEED) -> nn.Module:
    """Return the module in evaluation mode, with gains and biases moved and BatchNorm's statistics those of `example` in training mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.rand(parameter.shape, generator=generator)
            if name.endswith("bias"):
                parameter.add_(0.2 * (noise - 0.5))
            elif parameter.ndim == 1:
                parameter.mul_(0.7 + 0.6 * noise)
        norms = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]  # noqa: SLF001
        if norms:
            momenta = [layer.momentum for layer in norms]
            for layer in norms:
                layer.momentum = None  # the average of all batches, here of one
                layer.train()
            module(*example)
            for layer, momentum in zip(norms, momenta, strict=True):
                layer.momentum = momentum
    return module.eval()


def drawn(*shape: int, seed: int = SEED) -> Tensor:
    """Return standard normal numbers by a fixed seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def whole_numbers(high: int, *shape: int, seed: int = SEED) -> Tensor:
    """Return int64 numbers from 0 to below `high` by a fixed seed."""
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(seed))


def _seeded(seed: int = SEED) -> None:
    torch.manual_seed(seed)


class TwoLayerLstm(nn.Module):
    """Two LSTM layers over a series, and what the last step says."""

    def __init__(self, features: int = 12, hidden: int = 48, classes: int = 5) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, hidden, num_layers=2, batch_first=True, dropout=0.2)
        self.head = nn.Linear(hidden, classes)

    def forward(self, series: Tensor) -> Tensor:
        states, _ = self.lstm(series)
        scores: Tensor = self.head(states[:, -1])
        return scores


class Tagger(nn.Module):
    """Words, a GRU in both directions, a tag for each word."""

    def __init__(self, words: int = 200, width: int = 24, hidden: int = 32, tags: int = 7) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.gru = nn.GRU(width, hidden, batch_first=True, bidirectional=True)
        self.norm = nn.LayerNorm(2 * hidden)
        self.tags = nn.Linear(2 * hidden, tags)

    def forward(self, words: Tensor) -> Tensor:
        states, _ = self.gru(self.embedding(words))
        return torch.log_softmax(self.tags(self.norm(states)), dim=-1)


class DoubleConv(nn.Sequential):
    """Twice a convolution, BatchNorm and LeakyReLU."""

    def __init__(self, channels: int, into: int) -> None:
        super().__init__(
            nn.Conv2d(channels, into, 3, padding=1, bias=False),
            nn.BatchNorm2d(into),
            nn.LeakyReLU(0.1),
            nn.Conv2d(into, into, 3, padding=1, bias=False),
            nn.BatchNorm2d(into),
            nn.LeakyReLU(0.1),
        )


class UNet(nn.Module):
    """Down by MaxPool, up by transposed convolutions, with what was seen on the way down beside it."""

    def __init__(self, widths: Sequence[int] = (12, 24, 48), channels: int = 3, classes: int = 4) -> None:
        super().__init__()
        self.mean = nn.Buffer(torch.tensor([0.485, 0.456, 0.406]).reshape(1, channels, 1, 1))
        self.std = nn.Buffer(torch.tensor([0.229, 0.224, 0.225]).reshape(1, channels, 1, 1))
        self.stem = DoubleConv(channels, widths[0])
        self.down = nn.ModuleList(DoubleConv(*pair) for pair in pairwise(widths))
        upwards = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(wide, narrow, 2, stride=2) for wide, narrow in upwards)
        self.merge = nn.ModuleList(DoubleConv(2 * narrow, narrow) for _, narrow in upwards)
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        values = self.stem((image - self.mean) / self.std)
        skips = []
        for block in self.down:
            skips.append(values)
            values = block(F.max_pool2d(values, 2))
        for up, merge in zip(self.up, self.merge, strict=True):
            values = merge(torch.cat([skips.pop(), up(values)], dim=1))
        scores: Tensor = self.head(values)
        return scores


class ConvNextBlock(nn.Module):
    """A depthwise convolution, LayerNorm and a multilayer perceptron over channels, scaled, beside the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.expand = nn.Linear(width, 4 * width)
        self.project = nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, values: Tensor) -> Tensor:
        branch = self.norm(self.depthwise(values).permute(0, 2, 3, 1))
        branch = self.scale * self.project(F.gelu(self.expand(branch)))
        added: Tensor = values + branch.permute(0, 3, 1, 2)
        return added


class ConvNext(nn.Module):
    """Three such blocks behind a stem of patches."""

    def __init__(self, width: int = 32, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 4, stride=4)
        self.blocks = nn.Sequential(*(ConvNextBlock(width) for _ in range(3)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)

    def forward(self, image: Tensor) -> Tensor:
        scores: Tensor = self.head(self.norm(self.blocks(self.stem(image)).mean((2, 3))))
        return scores


class DepthwiseSeparable(nn.Module):
    """A MobileNet of the first kind: depthwise and pointwise convolutions with BatchNorm and ReLU6."""

    def __init__(self, widths: Sequence[int] = (16, 32, 48, 64), classes: int = 10) -> None:
        super().__init__()
        self.stem = self.layer(3, widths[0], 3, stride=2)
        self.blocks = nn.Sequential()
        for narrow, wide in pairwise(widths):
            self.blocks.append(nn.Sequential(self.layer(narrow, narrow, 3, groups=narrow), self.layer(narrow, wide, 1)))
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(widths[-1], classes)

    @staticmethod
    def layer(channels: int, into: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
        """Return a convolution with what follows it."""
        convolution = nn.Conv2d(channels, into, size, stride=stride, padding=size // 2, groups=groups, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(into), nn.ReLU6())

    def forward(self, image: Tensor) -> Tensor:
        values = self.blocks(self.stem(3.0 * image))
        scores: Tensor = self.head(self.dropout(F.adaptive_avg_pool2d(values, 1).flatten(1)))
        return scores


class Residual(nn.Module):
    """The basic block of a ResNet."""

    def __init__(self, channels: int, into: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, into, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(into)
        self.conv2 = nn.Conv2d(into, into, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(into)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride > 1 or channels != into:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, into, 1, stride=stride, bias=False), nn.BatchNorm2d(into)
            )

    def forward(self, values: Tensor) -> Tensor:
        branch = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(values)))))
        activated: Tensor = self.relu(branch + (values if self.downsample is None else self.downsample(values)))
        return activated


class ResNet(nn.Module):
    """A ResNet of three stages with two blocks each."""

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential

    def __init__(self, widths: Sequence[int] = (16, 32, 64), classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        before = (widths[0], *widths)
        for stage, width in enumerate(widths, 1):
            blocks = nn.Sequential(Residual(before[stage - 1], width, 1 + (stage > 1)), Residual(width, width))
            setattr(self, f"layer{stage}", blocks)
        self.fc = nn.Linear(widths[-1], classes)

    def forward(self, image: Tensor) -> Tensor:
        values = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        values = self.layer3(self.layer2(self.layer1(values)))
        scores: Tensor = self.fc(F.adaptive_avg_pool2d(values, 1).flatten(1))
        return scores


class Pyramid(nn.Module):
    """A detector's feature pyramid: three scales, each added to the finer one after an upsampling, GroupNorm and SiLU."""

    def __init__(self, width: int = 24, anchors: int = 3) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        self.lateral = nn.ModuleList()
        for i in range(3):
            channels = 3 if i == 0 else width * i
            self.stages.append(
                nn.Sequential(
                    nn.Conv2d(channels, width * (i + 1), 3, stride=2, padding=1),
                    nn.GroupNorm(4, width * (i + 1)),
                    nn.SiLU(),
                )
            )
            self.lateral.append(nn.Conv2d(width * (i + 1), width, 1))
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.smooth = nn.Conv2d(width, width, 3, padding=1)
        self.boxes = nn.Conv2d(width, 4 * anchors, 1)
        self.classes = nn.Conv2d(width, anchors, 1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        scales = []
        for stage, lateral in zip(self.stages, self.lateral, strict=True):
            image = stage(image)
            scales.append(lateral(image))
        values = scales.pop()
        while scales:
            values = scales.pop() + self.upsample(values)
        values = F.silu(self.smooth(values))
        heat = F.interpolate(torch.sigmoid(self.classes(values)), scale_factor=2.0, mode="bilinear")
        return {"boxes": self.boxes(values).exp(), "heat": heat}


class MeanPooled(nn.Module):
    """Words, convolutions over time, and their mean over a length that Python counts: what a tracing exporter bakes into its graph."""

    def __init__(self, words: int = 120, width: int = 32, classes: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.conv = nn.Conv1d(width, width, 3, padding=1)
        self.head = nn.Linear(width, classes)

    def forward(self, words: Tensor) -> Tensor:
        values = torch.tanh(self.conv(self.embedding(words).transpose(1, 2)))
        scores: Tensor = self.head(values.sum(-1) / float(words.shape[1]))
        return scores


class HalfConv2d(nn.Conv2d):
    """A convolution that a framework set to be fast computes in bfloat16 where it is asked for float32: a fault to find."""

    def forward(self, values: Tensor) -> Tensor:
        if values.dtype is not torch.float32 or torch.onnx.is_in_onnx_export():
            return super().forward(values)
        halves = F.conv2d(values.bfloat16(), self.weight.bfloat16(), None, self.stride, self.padding)
        return halves.float()


class HalfConv(nn.Module):
    """Three convolutions, of which the framework computes the second in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.conv2 = HalfConv2d(16, 16, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(16, 4, 3, padding=1, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        scores: Tensor = self.conv3(torch.relu(self.conv2(torch.relu(self.conv1(image)))))
        return scores


class MixtureOfExperts(nn.Module):
    """A gate that weighs the answers of four experts, each a perceptron with a gated unit; RMSNorm before, residual around."""

    def __init__(self, width: int = 32, experts: int = 4) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width)
        self.gate = nn.Linear(width, experts, bias=False)
        self.up = nn.Parameter(torch.randn(experts, width, 2 * width) / width**0.5)
        self.gated = nn.Parameter(torch.randn(experts, width, 2 * width) / width**0.5)
        self.down = nn.Parameter(torch.randn(experts, 2 * width, width) / (2 * width) ** 0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        values = self.norm(tokens)
        chosen, which = torch.topk(torch.softmax(self.gate(values), dim=-1), 2, dim=-1)
        shares = torch.zeros_like(self.gate(values)).scatter(-1, which, chosen / chosen.sum(-1, keepdim=True))
        inner = torch.einsum("btd,edh->bteh", values, self.up) * F.silu(
            torch.einsum("btd,edh->bteh", values, self.gated)
        )
        return tokens + torch.einsum("bteh,ehd,bte->btd", inner, self.down, shares)


def lstm() -> tuple[nn.Module, Example]:
    """Two LSTM layers."""
    _seeded()
    return settled(TwoLayerLstm()), (drawn(2, 20, 12),)


def gru() -> tuple[nn.Module, Example]:
    """A tagger with a GRU in both directions."""
    _seeded()
    return settled(Tagger()), (whole_numbers(200, 2, 15),)


def unet() -> tuple[nn.Module, Example]:
    """A U-Net with transposed convolutions."""
    _seeded()
    images = torch.sigmoid(drawn(4, 3, 48, 64))
    return settled(UNet(), images), (images[:2],)


def convnext() -> tuple[nn.Module, Example]:
    """ConvNeXt blocks."""
    _seeded()
    return settled(ConvNext()), (drawn(2, 3, 48, 48),)


def depthwise() -> tuple[nn.Module, Example]:
    """Depthwise separable convolutions with ReLU6."""
    _seeded()
    images = drawn(4, 3, 48, 48)
    return settled(DepthwiseSeparable(), images), (images[:2],)


def resnet() -> tuple[nn.Module, Example]:
    """A small ResNet."""
    _seeded()
    images = drawn(8, 3, 64, 64)
    return settled(ResNet(), images), (images[:2],)


def pyramid() -> tuple[nn.Module, Example]:
    """A feature pyramid with two outputs."""
    _seeded()
    return settled(Pyramid()), (drawn(2, 3, 48, 64),)


def pooled() -> tuple[nn.Module, Example]:
    """A mean over a length that Python counts."""
    _seeded()
    return settled(MeanPooled()), (whole_numbers(120, 2, 11),)


def experts() -> tuple[nn.Module, Example]:
    """A mixture of experts."""
    _seeded()
    return settled(MixtureOfExperts()), (drawn(2, 9, 32),)


def half_conv() -> tuple[nn.Module, Example]:
    """A framework that computes one convolution in bfloat16."""
    _seeded()
    return settled(HalfConv()), (drawn(2, 3, 24, 24),)
