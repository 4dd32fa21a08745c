"""Gradients on a route through a graph: the graph is extended backwards, and the runtime runs that like any other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import onnx

from actconform.errors import Unsupported, UnsupportedOperator
from actconform.onnx.gates import io_names
from actconform.onnx.grad.reverse_mode import add_gradients
from actconform.types.model import LOSS, OUTPUT, Model

if TYPE_CHECKING:
    from actconform.types import Artifact, Bundle, Kernel

COTANGENT = "ct_"


def vjp_artifact(artifact: Artifact, subject: Kernel | Model) -> Artifact:
    """Return the graph that gives `d_<name>` for every differentiable input that the artifact has, and nothing else.

    Its inputs are those of the artifact and the cotangent of y, or of a model's loss. Raises Unsupported, naming node,
    operator and opset, where an operator on the way has no rule.
    """
    output, wanted = (LOSS, subject.differentiable) if isinstance(subject, Model) else (OUTPUT, subject.inputs)
    names, _ = io_names(artifact.model)
    try:
        model = add_gradients(
            onnx.load_from_string(artifact.model),
            [name for name in wanted if name in names],
            outputs=[output],
            cotangent=COTANGENT,
            gradient="d_",
            keep_outputs=False,
        )
    except UnsupportedOperator as error:
        raise Unsupported(str(error)) from error
    return msgspec.structs.replace(artifact, model=model.SerializeToString())


def with_cotangents(inputs: Bundle, cotangents: Bundle | None) -> Bundle:
    """Return the inputs of the extended graph: those of the artifact, and the cotangents under their names there."""
    return {**inputs, **{COTANGENT + name: array for name, array in (cotangents or {}).items()}}
