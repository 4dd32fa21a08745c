"""Attention and the layers of memory networks, of torch's own functions; images do not occur here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform_torch.layers import BuiltLayer

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from actconform.plugin.framework import LayerContext
    from actconform_torch.layers import Named


def _attention(_: LayerContext) -> BuiltLayer:
    from torch.nn.functional import scaled_dot_product_attention

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # (batch, heads, t, d), as documented; torch-dynamo refuses what has no axis of heads.
        return scaled_dot_product_attention(q.unsqueeze(1), k.unsqueeze(1), v.unsqueeze(1)).squeeze(1)

    return BuiltLayer("torch.nn.functional.scaled_dot_product_attention", attention)


def _multi_head_attention(context: LayerContext) -> BuiltLayer:
    import torch

    class SelfAttention(torch.nn.MultiheadAttention):
        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x, x, x, need_weights=False)[0]

    module = SelfAttention(context.shapes[0][-1], int(context.number("heads")), batch_first=True)

    def state(p: Named) -> dict[str, Tensor]:
        return {
            "in_proj_weight": torch.cat([p[f"{one}-kernel"].T for one in "qkv"]),
            "in_proj_bias": torch.cat([p[f"{one}-bias"] for one in "qkv"]),
            "out_proj.weight": p["o-kernel"].T,
            "out_proj.bias": p["o-bias"],
        }

    return BuiltLayer("torch.nn.MultiheadAttention", module, state)


def _cosine_similarity(context: LayerContext) -> BuiltLayer:
    from torch.nn.functional import cosine_similarity

    one_key = len(context.shapes[1]) == 1

    def similarity(memory: Tensor, key: Tensor) -> Tensor:
        if one_key:
            return cosine_similarity(memory, key.unsqueeze(1), dim=-1)
        return cosine_similarity(memory.unsqueeze(1), key.unsqueeze(2), dim=-1)

    return BuiltLayer("torch.nn.functional.cosine_similarity", similarity)


def _interpolate(gate: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return gate * a + (1.0 - gate) * b


def _circular_shift(context: LayerContext) -> BuiltLayer:
    import torch

    width = context.shapes[1][0]

    def shift(w: Tensor, s: Tensor) -> Tensor:
        rolled = [torch.roll(w, j - (width - 1) // 2, dims=-1) for j in range(width)]
        return (torch.stack(rolled, dim=-1) * s.unsqueeze(1)).sum(dim=-1)

    return BuiltLayer("composition: sum of s_j * torch.roll(w, j - (k - 1) / 2)", shift)


def _sharpen(w: Tensor, gamma: Tensor) -> Tensor:
    powers = w.pow(gamma)
    return powers / powers.sum(dim=-1, keepdim=True)


def _read(context: LayerContext) -> BuiltLayer:
    if len(context.shapes[0]) == 1:
        return BuiltLayer("torch.matmul", lambda w, memory: (w.unsqueeze(1) @ memory).squeeze(1))
    return BuiltLayer("torch.matmul", lambda w, memory: w @ memory)


def _write(memory: Tensor, w: Tensor, erase: Tensor, add: Tensor) -> Tensor:
    w = w.unsqueeze(-1)
    return memory * (1.0 - w * erase.unsqueeze(1)) + w * add.unsqueeze(1)


def _retention(free: Tensor, w: Tensor) -> Tensor:
    return (1.0 - free.unsqueeze(-1) * w).prod(dim=1)


def _usage(u: Tensor, w: Tensor, retention: Tensor) -> Tensor:
    return (u + w - u * w) * retention


def _allocation(u: Tensor) -> Tensor:
    import torch

    ordered, order = torch.sort(u, dim=-1, stable=True)
    before = torch.cumprod(torch.cat([torch.ones_like(u[:, :1]), ordered[:, :-1]], dim=-1), dim=-1)
    return torch.zeros_like(u).scatter(-1, order, (1.0 - ordered) * before)


def _link(link: Tensor, w: Tensor, p: Tensor) -> Tensor:
    import torch

    rows, columns = w.unsqueeze(2), w.unsqueeze(1)
    moved = (1.0 - rows - columns) * link + rows * p.unsqueeze(1)
    return moved.masked_fill(torch.eye(link.shape[-1], dtype=torch.bool, device=link.device), 0.0)


def _precedence(p: Tensor, w: Tensor) -> Tensor:
    return (1.0 - w.sum(dim=-1, keepdim=True)) * p + w


def _directional(context: LayerContext) -> BuiltLayer:
    if context.number("transposed"):
        return BuiltLayer("torch.matmul", lambda link, w: w @ link)
    return BuiltLayer("torch.matmul", lambda link, w: w @ link.transpose(1, 2))


def _mix(modes: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return modes[..., 0:1] * a + modes[..., 1:2] * b + modes[..., 2:3] * c


def _written(text: str, function: Callable[..., Tensor]) -> Callable[[LayerContext], BuiltLayer]:
    return lambda _: BuiltLayer(f"composition: {text}", function)


MEMORY_BUILDERS: dict[str, Callable[[LayerContext], BuiltLayer]] = {
    "attention": _attention,
    "multi-head-attention": _multi_head_attention,
    "cosine-similarity": _cosine_similarity,
    "interpolate": _written("gate * a + (1 - gate) * b", _interpolate),
    "circular-shift": _circular_shift,
    "sharpen": _written("w.pow(gamma) / w.pow(gamma).sum(-1)", _sharpen),
    "read": _read,
    "write": _written("memory * (1 - w * erase) + w * add", _write),
    "retention": _written("(1 - free * w).prod(1)", _retention),
    "usage": _written("(u + w - u * w) * retention", _usage),
    "allocation": _written("torch.sort(stable=True), torch.cumprod, scatter", _allocation),
    "link": _written("(1 - w_i - w_j) * l + w_i * p_j, masked_fill of the diagonal", _link),
    "precedence": _written("(1 - w.sum(-1)) * p + w", _precedence),
    "directional": _directional,
    "mix": _written("modes_0 * a + modes_1 * b + modes_2 * c", _mix),
}
