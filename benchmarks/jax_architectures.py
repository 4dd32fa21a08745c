"""Architectures in flax.nnx and equinox as people write them, each a factory of (model, example inputs); weights are random by a fixed seed.

Gains, biases and the statistics of BatchNorm are moved away from one and zero, as in `torch_architectures`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from flax import nnx

SEED = 18


def drawn(*shape: int, seed: int = SEED) -> jax.Array:
    """Return standard normal numbers by a fixed seed."""
    return jax.random.normal(jax.random.key(seed), shape)


def moved(tree: Any) -> Any:
    """Return a pytree whose vectors, gains and biases, lie around where they were."""
    leaves, structure = jax.tree.flatten(tree)
    noise = [
        drawn(*leaf.shape, seed=place) if eqx.is_inexact_array(leaf) else leaf for place, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(
        structure,
        [
            leaf + 0.1 * other if eqx.is_inexact_array(leaf) and leaf.ndim == 1 else leaf
            for leaf, other in zip(leaves, noise, strict=True)
        ],
    )


class DecoderBlock(nnx.Module):
    """Attention to earlier tokens and a gated product, both after RMSNorm."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs) -> None:
        self.before = nnx.RMSNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(heads, width, decode=False, rngs=rngs)
        self.middle = nnx.RMSNorm(width, rngs=rngs)
        self.gate = nnx.Linear(width, 2 * width, rngs=rngs)
        self.up = nnx.Linear(width, 2 * width, rngs=rngs)
        self.down = nnx.Linear(2 * width, width, rngs=rngs)
        self.drop = nnx.Dropout(0.1, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        x = x + self.drop(self.attention(self.before(x), mask=mask))
        y = self.middle(x)
        return x + self.down(jax.nn.silu(self.gate(y)) * self.up(y))


class Decoder(nnx.Module):
    """Tokens to scores of the next ones, by the weights of the embedding."""

    def __init__(self, rngs: nnx.Rngs, tokens: int = 50, width: int = 32, steps: int = 12) -> None:
        self.embed = nnx.Embed(tokens, width, rngs=rngs)
        self.positions = nnx.Param(0.1 * drawn(steps, width))
        self.blocks = nnx.List([DecoderBlock(width, 4, rngs) for _ in range(3)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)

    def __call__(self, ids: jax.Array) -> jax.Array:
        x = self.embed(ids) + self.positions[...][None, : ids.shape[1]]
        mask = nnx.make_causal_mask(ids)
        for block in self.blocks:
            x = block(x, mask)
        return self.embed.attend(self.norm(x))


class Tagger(eqx.Module):
    """A GRU over time steps, written as a scan, with a normalized head."""

    cell: eqx.nn.GRUCell
    norm: eqx.nn.LayerNorm
    head: eqx.nn.MLP

    def __init__(self, key: jax.Array) -> None:
        first, second = jax.random.split(key)
        self.cell = eqx.nn.GRUCell(6, 16, key=first)
        self.norm = eqx.nn.LayerNorm(16)
        self.head = eqx.nn.MLP(16, 5, 24, 1, activation=jax.nn.gelu, key=second)

    def __call__(self, steps: jax.Array) -> jax.Array:
        def step(state: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            state = self.cell(x, state)
            return state, state

        _, states = jax.lax.scan(step, jnp.zeros(16), steps)
        return jax.vmap(lambda state: self.head(self.norm(state)))(states)


def _over_batch(model: Tagger, steps: jax.Array) -> jax.Array:
    return jax.vmap(model)(steps)


def nnx_decoder() -> tuple[Decoder, tuple[jax.Array]]:
    """Return a decoder in inference mode."""
    graph, state = nnx.split(Decoder(nnx.Rngs(SEED)))
    model = nnx.merge(graph, moved(state))
    model.eval()  # type: ignore[no-untyped-call]
    return model, (jax.random.randint(jax.random.key(SEED), (2, 12), 0, 50),)


def equinox_tagger() -> tuple[partial[jax.Array], tuple[jax.Array]]:
    """Return a tagger, over a batch."""
    return partial(_over_batch, moved(Tagger(jax.random.key(SEED)))), (drawn(3, 7, 6),)
