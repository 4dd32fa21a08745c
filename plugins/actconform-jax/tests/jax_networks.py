"""Models of users, as a factory gives them: an MLP, convolutions and attention in flax.nnx, and others in equinox, flax.linen and plain JAX."""

from __future__ import annotations

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from flax import linen, nnx


def drawn(*shape, seed=1):
    return jax.random.normal(jax.random.key(seed), shape)


class Mlp(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(6, 8, rngs=rngs)
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        self.drop = nnx.Dropout(0.4, rngs=rngs)
        self.last = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        return self.last(self.drop(jax.nn.gelu(self.norm(self.first(x)), approximate=False)))


class ConvNet(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        self.bn = nnx.BatchNorm(8, rngs=rngs)
        self.depthwise = nnx.Conv(8, 8, (3, 3), feature_group_count=8, rngs=rngs)
        self.head = nnx.Linear(8, 5, rngs=rngs)

    def __call__(self, x):
        x = jax.nn.relu(self.bn(self.conv(x)))
        x = nnx.max_pool(self.depthwise(x), window_shape=(2, 2), strides=(2, 2))
        return self.head(x.mean((1, 2)))


class Block(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)
        self.mlp = nnx.Linear(8, 8, rngs=rngs)

    def __call__(self, x):
        x = x + self.attention(self.norm(x))
        return x + jax.nn.silu(self.mlp(x))


class Encoder(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([Block(rngs) for _ in range(2)])

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return {"hidden": x, "pooled": x.mean(1)}


class Recurrent(eqx.Module):
    cell: eqx.nn.GRUCell
    out: eqx.nn.Linear

    def __call__(self, xs):
        state, _ = jax.lax.scan(lambda state, x: (self.cell(x, state), None), jnp.zeros(4), xs)
        return self.out(state)


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(2)(linen.relu(linen.Dense(4)(x)))


class Opaque(nnx.Module):
    def __init__(self, rngs):
        self.inner = nnx.Sequential(nnx.Linear(3, 3, rngs=rngs), Eigenvalues())

    def __call__(self, x):
        return self.inner(x)


class Eigenvalues(nnx.Module):
    def __call__(self, x):
        return jnp.linalg.eigvalsh(x @ x.T)


def affine(weights, x, scale=None):
    y = jnp.tanh(x @ weights["dense"]["kernel"] + weights["dense"]["bias"])
    return y if scale is None else y * scale


def mlp():
    model = Mlp(nnx.Rngs(3))
    model.norm.scale[...] = 1 + 0.3 * drawn(8)
    model.eval()
    return model, (drawn(4, 6),)


def conv():
    model = ConvNet(nnx.Rngs(3))
    model(2 * drawn(16, 6, 6, 3) + 1)  # running statistics
    return model, drawn(4, 6, 6, 3)


def attention():
    return Encoder(nnx.Rngs(3)), {"x": drawn(2, 5, 8)}


def recurrent():
    keys = jax.random.split(jax.random.key(3))
    model = Recurrent(eqx.nn.GRUCell(3, 4, key=keys[0]), eqx.nn.Linear(4, 2, key=keys[1]))
    return model, (drawn(6, 3),)


def weights():
    return {"dense": {"kernel": drawn(6, 4, seed=5), "bias": drawn(4, seed=6)}}


def plain():
    return partial(affine, weights()), (drawn(3, 6),)


def flax_linen():
    model = Linen()
    return partial(model.apply, model.init(jax.random.key(3), drawn(1, 6))), drawn(3, 6)


def opaque():
    return Opaque(nnx.Rngs(3)), (drawn(3, 3),)


def raises():
    return {}["missing"]


def needs(path):
    return mlp()


def number():
    return 42


def weights_alone():
    return weights()


def of_class():
    return Mlp


def unbound():
    return Linen()


def untraceable():
    return lambda x: x if x.sum() > 0 else -x, (drawn(3),)


def unfitting():
    return mlp()[0], (drawn(4, 7),)
