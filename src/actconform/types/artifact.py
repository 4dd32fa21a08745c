"""An exported graph, as its exporter handed it over."""

from __future__ import annotations

import msgspec


class Artifact(msgspec.Struct, frozen=True):
    """An exported graph: the bytes of a ModelProto, its opset, the path taken to it, and what the exporter warned of.

    Inputs bear the kernel's names, the output is "y". `ir_version` is 0 where it is not known. A user's model has the names that it
    has, and may lie in `file`, a path: `model` is empty then, and large tensors may lie in files beside it.
    """

    model: bytes
    opset: int
    path: str
    warnings: tuple[str, ...] = ()
    ir_version: int = 0
    file: str = ""
