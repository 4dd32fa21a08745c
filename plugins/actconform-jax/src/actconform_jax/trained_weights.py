"""A user's model as its weights by name and what puts them together again: flax.nnx, pytrees such as equinox's Modules, and functools.partial."""

from __future__ import annotations

import functools
import inspect
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

Array: TypeAlias = Any
"""An array of JAX's or NumPy's, or a tracer in its place."""
Model: TypeAlias = Any
"""What can be called."""


class Parts(NamedTuple):
    """A model taken apart."""

    arrays: dict[str, Array]
    """All arrays by path ("encoder.norm.scale"), weights, statistics and random states."""
    rebuilt: Callable[[Mapping[str, Array]], Model]
    """Returns the model with other arrays in their places; it shares nothing that a call can change with the user's."""
    random: frozenset[str] = frozenset()
    """Those that are states of random numbers."""


def taken_apart(model: Model, *, training: bool) -> Parts:
    """Return the parts of a model as it is in training or inference; a function that holds no arrays has none."""
    if is_nnx_module(model):
        return _of_nnx(model, training=training)
    if isinstance(model, functools.partial):
        return _of_partial(model, training=training)
    if inspect.ismethod(model) and (is_nnx_module(model.__self__) or is_pytree_model(model.__self__)):
        arrays, rebuilt, random = taken_apart(model.__self__, training=training)
        return Parts(arrays, lambda weights: getattr(rebuilt(weights), model.__name__), random)
    if is_pytree_model(model):
        equinox = sys.modules.get("equinox")
        return _of_tree(equinox.nn.inference_mode(model) if equinox is not None else model)
    return Parts({}, lambda _: model)


def modules_of(model: Model, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the modules within a model by path, itself first where it is one."""
    if is_nnx_module(model):
        for keys, module in sys.modules["flax.nnx"].iter_modules(model):
            yield ".".join([*([path] if path else []), *map(str, keys)]), module
    elif isinstance(model, functools.partial):
        yield from modules_of(model.func, path)
        yield from _modules_in_tree(_bound(model), path)
    elif inspect.ismethod(model):
        yield from modules_of(model.__self__, path)
    elif is_pytree_model(model):
        yield path, model
        yield from _modules_in_tree(model, path)
    elif hasattr(model, "__wrapped__"):
        yield from modules_of(model.__wrapped__, path)


def held_names(model: Model) -> dict[int, str]:
    """Return by id the names of the arrays of a module that a function holds, as `jax.vmap(module)` does; {} of other functions."""
    while not inspect.ismethod(model) and hasattr(model, "__wrapped__"):
        model = model.__wrapped__
    return {id(array): name for name, array in taken_apart(model, training=False).arrays.items()}


def is_nnx_module(value: object) -> bool:
    """Whether it is a Module of flax.nnx."""
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(value, nnx.Module)


def is_pytree_model(value: object) -> bool:
    """Whether it is an object of other arrays that can be called, as a Module of equinox."""
    if not callable(value) or isinstance(value, type | functools.partial):
        return False
    return not jax.tree_util.treedef_is_leaf(jax.tree_util.tree_structure(value))


def is_array(value: object) -> bool:
    """Whether it is an array of JAX's or NumPy's."""
    return isinstance(value, jax.Array | np.ndarray | np.generic)


def is_key(array: Array) -> bool:
    """Whether it is an array of keys of random numbers, which no other library has."""
    return bool(jax.numpy.issubdtype(array.dtype, jax.dtypes.prng_key))


def is_float(array: Array) -> bool:
    """Whether it has floating or complex numbers."""
    return not is_key(array) and bool(jax.numpy.issubdtype(array.dtype, jax.numpy.inexact))


def path_name(keys: Sequence[Any], *before: str) -> str:
    """Return a path of JAX's pytrees as a name, joined by "."."""
    return ".".join((*before, *(jax.tree_util.keystr((key,), simple=True) for key in keys)))


def _of_nnx(model: Any, *, training: bool) -> Parts:
    nnx = sys.modules["flax.nnx"]
    replica = nnx.clone(model)
    if training:
        replica.train()
    else:
        replica.eval()
    graph, state = nnx.split(replica)
    leaves = {".".join(map(str, path)): (path, leaf) for path, leaf in nnx.to_flat_state(state)}
    arrays = {name: leaf.get_value() if hasattr(leaf, "get_value") else leaf for name, (_, leaf) in leaves.items()}

    def rebuilt(weights: Mapping[str, Array]) -> Model:
        flat = [
            (path, leaf.replace(weights[name]) if hasattr(leaf, "get_value") else weights[name])
            for name, (path, leaf) in leaves.items()
        ]
        return nnx.merge(graph, nnx.from_flat_state(flat))

    random = [name for name, (_, leaf) in leaves.items() if isinstance(leaf, nnx.RngState)]
    return Parts(arrays, rebuilt, frozenset(random))


def _of_tree(tree: Any) -> Parts:
    """Return the parts of a pytree: leaves that are no arrays stay as they are."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    names = [path_name(path) for path, _ in leaves]
    arrays = {name: leaf for name, (_, leaf) in zip(names, leaves, strict=True) if is_array(leaf)}

    def rebuilt(weights: Mapping[str, Array]) -> Any:
        values = [weights.get(name, leaf) for name, (_, leaf) in zip(names, leaves, strict=True)]
        return jax.tree_util.tree_unflatten(structure, values)

    return Parts(arrays, rebuilt, frozenset(name for name, array in arrays.items() if is_key(array)))


def _of_partial(model: functools.partial[Any], *, training: bool) -> Parts:
    """Return the parts of the function and of what is bound to it; of one bound pytree the paths begin within it."""
    inner = taken_apart(model.func, training=training)
    bound = _bound(model)
    tree = _of_tree(bound)
    renamed = {name: f"bound.{name}" if name in inner.arrays else name for name in tree.arrays}
    holding = [key for key, value in bound.items() if any(map(is_array, jax.tree_util.tree_leaves(value)))]
    if len(holding) == 1 and not is_array(bound[holding[0]]) and not inner.arrays:
        renamed = {name: name.removeprefix(f"{holding[0]}.") for name in tree.arrays}

    def rebuilt(weights: Mapping[str, Array]) -> Model:
        values = tree.rebuilt({name: weights[new] for name, new in renamed.items()})
        positions = [values[key] for key in list(bound)[: len(model.args)]]
        keywords = {key: values[key] for key in model.keywords}
        return functools.partial(inner.rebuilt(weights), *positions, **keywords)

    arrays = {**inner.arrays, **{renamed[name]: array for name, array in tree.arrays.items()}}
    return Parts(arrays, rebuilt, inner.random | {renamed[name] for name in tree.random})


def _bound(model: functools.partial[Any]) -> dict[str, Any]:
    """Return what is bound by the names of the function's parameters, the positional ones first."""
    try:
        names = list(inspect.signature(model.func).parameters)
    except (TypeError, ValueError):
        names = []
    names += [f"args_{place}" for place in range(len(names), len(model.args))]
    return {**dict(zip(names, model.args, strict=False)), **model.keywords}


def _modules_in_tree(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    def stops(value: object) -> bool:
        return value is not tree and is_pytree_model(value)

    for keys, value in jax.tree_util.tree_flatten_with_path(tree, is_leaf=stops)[0]:
        if stops(value):
            yield from modules_of(value, path_name(keys, *([path] if path else [])))
