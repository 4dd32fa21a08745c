"""Rules on parameters whose defaults differ between frameworks, and on one node whose parameter is not that of its like."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from onnx import TensorProto

from actconform.linting.linted_graph import attribute_of, is_standard
from actconform.plugin.lint_rule import LintRule
from actconform.text import number_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

    from actconform.linting.linted_graph import LintedGraph
    from actconform.linting.linted_model import LintedModel
    from actconform.types.lint import LintObservation

FEWEST = 4  # nodes of a kind among which one can be the odd one
RARE = 0.25  # of them
LARGEST_EPSILON = 0.1
# By parameter the defaults of each framework, the layers' and the functions'.
DEFAULTS: dict[str, dict[str, tuple[float | str, ...]]] = {
    "slope of LeakyRelu": {"torch": (0.01,), "keras": (0.3, 0.2), "jax": (0.01,)},
    "epsilon of BatchNormalization": {"torch": (1e-5,), "keras": (1e-3,), "jax": (1e-5,)},
    "epsilon of LayerNormalization": {"torch": (1e-5,), "keras": (1e-3,), "jax": (1e-6,)},
    "slope of HardSigmoid": {"torch": (1 / 6,), "keras": (1 / 6,), "jax": (1 / 6,), "ONNX and Keras 2": (0.2,)},
    "formula of Gelu": {"torch": ("erf",), "keras": ("erf",), "jax": ("tanh",)},
}
# By operator the parameter, its attribute, and ONNX's default of it.
_STATED = {
    "LeakyRelu": ("slope of LeakyRelu", "alpha", 0.01),
    "BatchNormalization": ("epsilon of BatchNormalization", "epsilon", 1e-5),
    "LayerNormalization": ("epsilon of LayerNormalization", "epsilon", 1e-5),
    "HardSigmoid": ("slope of HardSigmoid", "alpha", 0.2),
}
NAMES = {"torch": "PyTorch", "keras": "Keras", "jax": "JAX"}


class _Parameter(NamedTuple):
    node: onnx.NodeProto
    name: str
    value: float | str


def _default_of_another(model: LintedModel) -> Iterator[LintObservation]:
    groups: dict[tuple[str, float | str], list[_Parameter]] = {}
    for parameter in _parameters(model) if model.framework else ():
        groups.setdefault((parameter.name, parameter.value), []).append(parameter)
    for (name, value), parameters in groups.items():
        defaults = DEFAULTS[name]
        if _is_among(value, defaults.get(model.framework, ())):
            continue
        owners = [NAMES.get(owner, owner) for owner, values in defaults.items() if _is_among(value, values)]
        if owners:
            usual = " or ".join(_shown(default) for default in defaults.get(model.framework, ()))
            count = len(parameters)
            where = "" if count == 1 else f" in {number_of(count, 'node')}, this the first"
            message = f"{name} is {_shown(value)}{where}: the default of {', '.join(owners)}; that of {NAMES[model.framework]} is {usual}"
            yield model.at(parameters[0].node, message, {"value": value, "nodes": count})


def _odd_parameter(model: LintedModel) -> Iterator[LintObservation]:
    groups: dict[str, list[_Parameter]] = {}
    for parameter in _parameters(model):
        groups.setdefault(parameter.name, []).append(parameter)
    for name, parameters in groups.items():
        counts = Counter(parameter.value for parameter in parameters)
        usual, often = counts.most_common(1)[0]
        odd = [parameter for parameter in parameters if parameter.value != usual]
        if len(parameters) < FEWEST or not odd or len(odd) > RARE * len(parameters):
            continue
        for parameter in odd:
            message = f"{name} is {_shown(parameter.value)} here and {_shown(usual)} in {often:,} of {len(parameters):,} such nodes"
            yield model.at(parameter.node, message, {"value": parameter.value, "usual": usual})


def _parameters(model: LintedModel) -> Iterator[_Parameter]:
    for graph in model.graphs:
        for node in graph.nodes:
            if is_standard(node) and (parameter := _parameter(graph, node)):
                yield parameter


def _parameter(graph: LintedGraph, node: onnx.NodeProto) -> _Parameter | None:
    operator = node.op_type
    if operator in _STATED:
        name, attribute, default = _STATED[operator]
        return _Parameter(node, name, attribute_of(node, attribute, default))
    formula = _gelu_formula(graph, node)
    if formula:
        return _Parameter(node, "formula of Gelu", formula)
    epsilon = _epsilon_of_rows(graph, node) if operator == "Add" else None
    return None if epsilon is None else _Parameter(node, "epsilon of LayerNormalization", epsilon)


def _gelu_formula(graph: LintedGraph, node: onnx.NodeProto) -> str:
    """Return the formula of a gelu, of one node or written out; "" where a node is none."""
    match node.op_type:
        case "Gelu":
            return "tanh" if attribute_of(node, "approximate", b"none") == b"tanh" else "erf"
        case "Erf":
            return "erf" if _is_scaled_by(graph, node.input[0], 0.5**0.5) else ""
        case "Tanh":
            return "tanh" if _is_scaled_by(graph, node.input[0], (2 / np.pi) ** 0.5) else ""
    return ""


def _is_scaled_by(graph: LintedGraph, name: str, factor: float) -> bool:
    giver = graph.giver(graph.origin(name))
    if giver is None or giver.op_type not in {"Mul", "Div"}:
        return False
    scalars = [scalar for each in giver.input if (scalar := graph.scalar(each)) is not None]
    wanted = 1 / factor if giver.op_type == "Div" else factor
    return any(abs(scalar - wanted) < 1e-3 * wanted for scalar in scalars)


def _epsilon_of_rows(graph: LintedGraph, node: onnx.NodeProto) -> float | None:
    """Return the epsilon of a layer normalization written out: added to a mean over the last axis, whose root is then taken."""
    for place, name in enumerate(node.input):
        epsilon = graph.scalar(name)
        variance = graph.giver(graph.origin(node.input[1 - place]))
        if epsilon is None or not 0 < epsilon < LARGEST_EPSILON or variance is None or variance.op_type != "ReduceMean":
            continue
        dims = graph.dims(variance.input[0])
        axes = attribute_of(variance, "axes", None)
        if axes is None and len(variance.input) > 1 and (values := graph.constant(variance.input[1])) is not None:
            axes = values.tolist()
        last = [-1] if dims is None else [-1, len(dims) - 1]
        roots = [reader.node for reader in graph.destinations(node.output[0])]
        if (
            axes
            and len(axes) == 1
            and axes[0] in last
            and any(root is not None and root.op_type in {"Sqrt", "Pow"} for root in roots)
        ):
            is_half = graph.element_type(name) in {TensorProto.FLOAT16, TensorProto.BFLOAT16}
            return None if is_half else epsilon
    return None


def _is_among(value: float | str, values: tuple[float | str, ...]) -> bool:
    if isinstance(value, str):
        return value in values
    return any(not isinstance(each, str) and abs(value - each) <= 1e-4 * each for each in values)


def _shown(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


DEFAULT_RULES = (
    LintRule(
        code="AC209",
        name="default-of-another-framework",
        severity="note",
        why="Frameworks disagree: LeakyRelu max(x, a x) has a = 0.01 or 0.3, x / sqrt(var + e) has e = 1e-5, 1e-3 or 1e-6, hard-sigmoid x / 6 + 0.5 or 0.2 x + 0.5.",
        hint="Fine where the model was meant so, or its weights came from there; otherwise state the parameter where the model is made.",
        check=_default_of_another,
    ),
    LintRule(
        code="AC210",
        name="odd-parameter",
        severity="note",
        why="Layers of one kind in one model mostly share their parameters: one 1e-4 among epsilons of 1e-5 changes 1 / sqrt(var + e) where var is small.",
        hint="Compare with the model as it was trained: `actconform check MODEL --against SOURCE`.",
        check=_odd_parameter,
    ),
)
