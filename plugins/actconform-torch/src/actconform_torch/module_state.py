"""A user's module for the time of one call: in another precision, in or out of training, and afterwards as it was, bit for bit.

Parameters, buffers and tensors that are plain attributes get other memory for the time of the call, and their own back: what a call changes in
place (running statistics, caches) never reaches the memory that the user's module has.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from actconform_torch.wide_arithmetic import wide_arithmetic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actconform.types.trained import RunMode

DTYPES = {"float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}
AUTOCAST = {"autocast-float16": torch.float16, "autocast-bfloat16": torch.bfloat16}
_OWN_ATTRIBUTES = frozenset(vars(torch.nn.Module()))


@contextmanager
def as_for_call(module: torch.nn.Module, mode: RunMode, seed: int) -> Iterator[None]:
    """Put the module and torch into the state of a run for the time of a call.

    `seed` is that of torch's, NumPy's and Python's random numbers meanwhile, all of which go on afterwards where they were.
    """
    device, native = device_of(module), float_dtype(module)
    with ExitStack() as stack:
        stack.enter_context(_seeded(device, seed))
        stack.enter_context(_structure_kept(module))
        stack.enter_context(_in_memory_of_its_own(module, DTYPES.get(mode.precision), wide=mode.precision == "float64"))
        if mode.training or is_training(module):
            module.train(mode.training)  # a module of torch.export takes neither train() nor eval()
        if mode.precision == "float64":
            scripted = any(isinstance(part, torch.jit.ScriptModule) for part in module.modules())
            stack.enter_context(wide_arithmetic(native, scripted=scripted))
        if mode.precision in AUTOCAST:
            stack.enter_context(torch.autocast(device.type, dtype=AUTOCAST[mode.precision]))
        yield


def is_training(module: torch.nn.Module) -> bool:
    """Return whether a part of a module is in training mode; a module that torch.jit.freeze made has no such flag, and is in none."""
    return any(getattr(part, "training", False) for part in module.modules())


def float_dtype(module: torch.nn.Module) -> torch.dtype | None:
    """Return the floating dtype that most of the weights have; None where there are none."""
    elements: dict[torch.dtype, int] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            elements[tensor.dtype] = elements.get(tensor.dtype, 0) + tensor.numel()
    return max(elements, key=lambda dtype: elements[dtype], default=None)


def device_of(module: torch.nn.Module) -> torch.device:
    """Return where the first of the weights lies; the CPU where there are none."""
    return next((tensor.device for tensor in (*module.parameters(), *module.buffers())), torch.device("cpu"))


def plain_tensors(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors that a module itself has as attributes, registered as neither parameter nor buffer."""
    for name, value in vars(module).items():
        if name not in _OWN_ATTRIBUTES and isinstance(value, torch.Tensor):
            yield name, value


@contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    states = random.getstate(), np.random.get_state()  # noqa: NPY002  the state that user code shares
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002


@contextmanager
def _in_memory_of_its_own(module: torch.nn.Module, dtype: torch.dtype | None, *, wide: bool) -> Iterator[None]:
    tensors = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    attributes = {id(tensor): tensor for part in module.modules() for tensor in _tensors_of_attributes(part)}
    saved = [(tensor, tensor.data, tensor.requires_grad) for tensor in {**attributes, **tensors}.values()]
    try:
        for tensor, data, _ in saved:
            # As module.half() does, attributes that are not registered keep their dtype, but where all is to be wide.
            converts = dtype is not None and data.is_floating_point() and (wide or id(tensor) in tensors)
            tensor.data = data.to(dtype, copy=True) if converts else data.clone()
        yield
    finally:
        for tensor, data, requires_grad in saved:
            tensor.data = data
            if tensor.is_leaf:
                tensor.requires_grad_(requires_grad)


def _tensors_of_attributes(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    for name, value in vars(module).items():
        if name in _OWN_ATTRIBUTES:
            continue
        if isinstance(value, torch.Tensor):
            yield value
        elif type(value) in (list, tuple, dict):
            parts = value.values() if type(value) is dict else value
            yield from (part for part in parts if isinstance(part, torch.Tensor))


@contextmanager
def _structure_kept(module: torch.nn.Module) -> Iterator[None]:
    """Undo what a call assigns to attributes of modules, the training flag among them, and puts into lists, dicts and sets that are attributes."""
    parts = list(module.modules())
    attributes = [(part, dict(vars(part))) for part in parts]
    containers = [
        (value, value.copy())
        for part in parts
        for value in vars(part).values()
        if type(value) in (list, dict, set, OrderedDict)
    ]
    try:
        yield
    finally:
        for value, before in containers:
            _refill(value, before)
        for part, before in attributes:
            now: dict[str, Any] = vars(part)
            for name in now.keys() - before.keys():
                del now[name]
            now.update(before)


def _refill(container: Any, before: Any) -> None:
    if type(container) is list:
        container[:] = before
    else:
        container.clear()
        container.update(before)
