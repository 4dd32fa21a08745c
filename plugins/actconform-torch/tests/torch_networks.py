"""Small networks of every kind that a user may hand over, with example inputs; weights are drawn from fixed seeds."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional


class Residual(nn.Module):
    """Writes in place, as many do: what a layer gave is another number later."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.act(self.norm(self.conv(x)))
        y += 1
        y[:, 0] = 2
        return self.act(y * -1)


class Functional(nn.Module):
    """No layers of its own: parameters, and functions of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(6, 5))
        self.second = nn.Parameter(torch.randn(5, 2))

    def forward(self, x):
        hidden = functional.gelu(x @ self.first)
        return functional.softmax(hidden @ self.second, -1)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6, num_layers=2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(12, 3, batch_first=True)

    def forward(self, x, state=None):
        y, state = self.lstm(x, state)
        y, last = self.gru(y)
        return y, state, last


class Casting(nn.Module):
    """Converts to float32 on the way, has constants of float32, and holds submodules in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 3, padding=1)
        self.norm = nn.LayerNorm(10)
        self.layers = nn.ModuleList([nn.Linear(10, 10), nn.Linear(10, 6)])
        self.register_buffer("factor", drawn(6))

    def forward(self, x):
        y = functional.gelu(self.norm(self.conv(x)).float())
        for layer in self.layers:
            y = torch.tanh(layer(y)).to(torch.float32)
        return y * self.factor + torch.tensor([0.25, 0.5, 0.75, 1.0, 1.25, 1.5], dtype=torch.float32)


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(2)
        self.middle = nn.Conv2d(4, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(8, 4, 2, 2)
        self.out = nn.Conv2d(8, 1, 1)

    def forward(self, x):
        skip = self.down(x)
        return self.out(torch.cat([self.up(self.middle(self.pool(skip))), skip], 1))


class Tied(nn.Module):
    """One weight under two names, one layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.block = nn.Linear(6, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        return self.head(self.block(torch.tanh(self.block(self.embed(ids)))))


class Keywords(nn.Module):
    """A mask by keyword, a dict of tensors, and a dict with a None and a nested tuple in return."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x, extra: dict[str, Any] | None = None, *, mask=None, scale=2.0):
        y = self.layer(x) * scale
        if extra is not None:
            y = y + extra["shift"] * extra["more"][0]
        if mask is not None:
            y = y.masked_fill(mask, 0.0)
        return {"logits": y, "attentions": None, "states": (y + 1, {"last": y[:, 0]})}


class Narrow(nn.Module):
    """Says float32 and half itself, and asks its format for numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.constant = torch.full((4,), 1 / 3)

    def forward(self, x):
        y = self.layer(x).float() + self.constant + torch.full((4,), 1 / 7, dtype=torch.float32)
        y = y.half().to(torch.float32) + torch.zeros(4)
        mask = torch.full((4,), torch.finfo(y.dtype).min)
        return functional.softmax(y, -1, dtype=torch.float32), mask


class Noisy(nn.Module):
    """Leaves dropout on whatever the mode, and remembers what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("count", torch.zeros(1))
        self.seen: list[int] = []
        self.last = torch.zeros(4)
        self.calls = 0

    def forward(self, x):
        self.count += 1
        self.calls += 1
        self.seen.append(self.calls)
        self.last = x[0].detach()
        with torch.no_grad():
            self.layer.weight.mul_(2.0)
        return functional.dropout(self.drop(self.norm(self.layer(x))), 0.5, training=True)


def attention() -> nn.Module:
    """Return an encoder whose layers torch would go around in inference."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu")
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def made(kind: type[nn.Module] | Any) -> nn.Module:
    """Return a network in inference mode, its weights from a seed, its running statistics not those of a fresh one."""
    with torch.random.fork_rng():
        torch.manual_seed(18)
        module = kind().eval()
        for buffer in module.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 1.5)
    return module


def drawn(*sizes: int) -> torch.Tensor:
    """Return numbers from a seed of their own."""
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(5))


EXAMPLES: dict[str, tuple[Any, Any]] = {
    "residual": (Residual, drawn(2, 3, 5, 5)),
    "functional": (Functional, drawn(3, 6)),
    "recurrent": (Recurrent, (drawn(3, 5, 4), (drawn(4, 3, 6), drawn(4, 3, 6)))),
    "u-net": (UNet, drawn(2, 1, 8, 8)),
    "tied": (Tied, torch.arange(10).reshape(2, 5)),
    "keywords": (
        Keywords,
        {
            "x": drawn(2, 4, 3),
            "extra": {"shift": drawn(2, 1, 3), "more": [drawn(2, 4, 1)]},
            "mask": drawn(2, 4, 3) > 0,
            "scale": 3.0,
        },
    ),
    "narrow": (Narrow, drawn(3, 4)),
    "attention": (attention, drawn(2, 5, 8)),
}
