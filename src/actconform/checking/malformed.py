"""Nodes that the standard does not have as they are written: their operator, or its inputs, outputs or attributes at the stated opset."""

from __future__ import annotations

from collections import defaultdict
from difflib import get_close_matches
from functools import cache, lru_cache
from typing import TYPE_CHECKING, NamedTuple

import onnx

from actconform.checking.structure import OLDEST_OPSET, is_removed, operator_domain, operator_version, opsets_of
from actconform.errors import near
from actconform.onnx.evaluate.contrib.registry import ADDED_TO_STANDARD, CONTRIB
from actconform.onnx.gates import deep
from actconform.text import listed, number_of, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_FEW = 5  # names in a message
_ANY = 2**31 - 1  # what schemas state for no limit
_OLD_OF_RUNTIME = frozenset(
    "Affine Crop DynamicSlice GivenTensorFill GRUUnit ImageScaler MeanVarianceNormalization ParametricSoftplus Scale ScaledTanh ThresholdedRelu".split()  # noqa: SIM905
)
_UNBOUND_ADVICE = (
    "state the attribute's value there, or take the attribute out: only a node in a function may refer to one of it"
)
_CALL_ADVICE = "correct what wrote it, and export the model anew: a call has no more inputs, outputs and attributes than its function"
_OLD_BELOW = 10  # ONNX Runtime has these operators in the standard's domain at opsets below


class Malformed(NamedTuple):
    """A node that breaks the standard at the opset which holds where it stands."""

    node: onnx.NodeProto
    words: str
    """What is wrong: "has 1 input, and takes 2 at opset 17", "is not an operator of opset 18"."""
    advice: str
    readable: bool
    """Whether nothing is wrong but that the opset lacks the operator."""
    runs: bool
    """Whether ONNX Runtime has the operator at that opset all the same."""


def malformed_nodes(model: onnx.ModelProto) -> Iterator[Malformed]:
    """Yield the malformed nodes of a model, in order, those in branches, loops and functions among them.

    Judged are operators of the domains that the installed onnx has, and calls of the model's functions; operators of other domains are
    not, but for an attribute that refers to one of a function where there is none.
    """
    functions: dict[tuple[str, str], list[onnx.FunctionProto]] = defaultdict(list)
    for function in model.functions:
        functions[_key(function.domain, function.name)].append(function)
    for holder, body in ((model, model.graph), *((function, function) for function in model.functions)):
        opsets = opsets_of(holder)
        for node in deep(body.node):
            domain = operator_domain(node.domain)
            if holder is model and (words := _unbound(node)):
                yield Malformed(node, words, _UNBOUND_ADVICE, readable=False, runs=False)
            elif called := functions.get(_key(node.domain, node.op_type)):
                yield from _malformed_call(node, called)
            elif domain in _domains() and (malformed := _malformed(node, domain, operator_version(domain, opsets))):
                yield malformed


def _key(domain: str, name: str) -> tuple[str, str]:
    return operator_domain(domain), name


def _unbound(node: onnx.NodeProto) -> str:
    """Return which attribute of a node refers to one of a function, and which; "" where none does."""
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            name, referred = one_line(attribute.name, 80), one_line(attribute.ref_attr_name, 80)
            return f"refers for its attribute {name} to the attribute {referred} of a function, and stands in none"
    return ""


def _malformed_call(node: onnx.NodeProto, called: Sequence[onnx.FunctionProto]) -> Iterator[Malformed]:
    """Yield a call that gives or takes more than its function has; `called` are those of its name. Inputs and outputs may be left out."""
    for function in called:
        if function.overload != node.overload:
            continue
        attributes = [*function.attribute, *(attribute.name for attribute in function.attribute_proto)]
        schema = _Schema(
            since=1,
            removed=False,
            inputs=[(name, False) for name in function.input],
            outputs=[(name, False) for name in function.output],
            input_counts=(0, len(function.input)),
            output_counts=(0, len(function.output)),
            attributes=dict.fromkeys(attributes, False),
        )
        if words := _miscounted_or_misstated(node, schema):
            name = one_line(f"{function.domain}.{function.name}", 160)
            words += f" as a call of the model's function {name}"
            yield Malformed(node, words, _CALL_ADVICE, readable=False, runs=False)


def _malformed(node: onnx.NodeProto, domain: str, opset: int) -> Malformed | None:
    if onnx.defs.has(node.op_type, opset, domain) and not (schema := _schema(node.op_type, opset, domain)).removed:
        words = _misfit(node, schema)
        if not words:
            return None
        return Malformed(
            node, f"{words} at {_opsets(domain, opset)}", _advice(node, domain, opset), readable=False, runs=False
        )
    versions = _history().get((domain, node.op_type), [])
    if versions:
        words = f"is not an operator of {_opsets(domain, opset)}: {_lifetime(domain, versions)}"
        advice = _advice(node, domain, opset)
    else:
        words = f"is not an operator of {'any version of ' + domain if domain else 'any opset'}{near(node.op_type, _names(domain))}"
        advice = (
            "an operator of a runtime's own is in a domain of its own, such as com.microsoft, which opset_import states"
        )
    runs = not domain and (
        (domain, node.op_type) in CONTRIB
        or node.op_type in ADDED_TO_STANDARD
        or (opset < _OLD_BELOW and node.op_type in _OLD_OF_RUNTIME)
    )
    nearest = min(versions, key=lambda each: abs(each.since - opset), default=None)
    fault = _misfit(node, nearest) if nearest else ""
    if nearest and fault:
        words += f", and {fault} at {_opsets(domain, nearest.since)}"
    return Malformed(node, words, advice, readable=not fault, runs=runs)


class _Schema(NamedTuple):
    """What an operator's schema says of the form of a node; a schema of onnx takes long to read."""

    since: int
    removed: bool
    """Whether this version ends the operator; one that is deprecated from its first version on, as GroupNormalization of opset 18, is defined."""
    inputs: Sequence[tuple[str, bool]]
    """The name of each formal input, and whether a node must have it."""
    outputs: Sequence[tuple[str, bool]]
    input_counts: tuple[int, int]
    output_counts: tuple[int, int]
    attributes: Mapping[str, bool]
    """By name, whether a node must state it."""


@lru_cache(maxsize=4096)
def _schema(operator: str, opset: int, domain: str) -> _Schema:
    return _described(onnx.defs.get_schema(operator, opset, domain))


def _described(schema: onnx.defs.OpSchema) -> _Schema:
    options = onnx.defs.OpSchema.FormalParameterOption
    return _Schema(
        schema.since_version,
        is_removed(schema),
        [(formal.name, formal.option != options.Optional) for formal in schema.inputs],
        [(formal.name, formal.option == options.Single) for formal in schema.outputs],
        (schema.min_input, schema.max_input),
        (schema.min_output, schema.max_output),
        {name: attribute.required for name, attribute in schema.attributes.items()},
    )


@cache
def _history() -> Mapping[tuple[str, str], Sequence[_Schema]]:
    """Return every operator's schemas by domain and name, oldest first, with those that say that it was removed."""
    schemas: dict[tuple[str, str], list[_Schema]] = defaultdict(list)
    for schema in sorted(onnx.defs.get_all_schemas_with_history(), key=lambda schema: schema.since_version):
        schemas[schema.domain, schema.name].append(_described(schema))
    return schemas


@cache
def _domains() -> frozenset[str]:
    return frozenset(domain for domain, _ in _history())


def _names(domain: str) -> list[str]:
    return [name for each, name in _history() if each == domain]


def _misfit(node: onnx.NodeProto, schema: _Schema) -> str:
    """Return what the schema does not have, without the opset; "" where the node fits."""
    if words := _miscounted_or_misstated(node, schema):
        return words
    if node.op_type == "Constant" and not node.attribute:
        return "states no value, which it must have"
    return _unfit_bodies(node, schema)


def _miscounted_or_misstated(node: onnx.NodeProto, schema: _Schema) -> str:
    return (
        _miscounted("input", node.input, schema.input_counts, schema.inputs)
        or _miscounted("output", node.output, schema.output_counts, schema.outputs)
        or _misstated(node, schema)
    )


def _miscounted(kind: str, names: Sequence[str], counts: tuple[int, int], formal: Sequence[tuple[str, bool]]) -> str:
    least, most = counts
    verb = "takes" if kind == "input" else "gives"
    if not least <= len(names) <= most:
        upper = f"{least} to {most}" if least else f"at most {most}"
        expected = f"{least}" if least == most else f"{least} or more" if most >= _ANY else upper
        return f"has {number_of(len(names), kind)}, and {verb} {expected}"
    for i, name in enumerate(names):
        formal_name, required = formal[min(i, len(formal) - 1)]  # a variadic one stands for all further ones
        if required and not name:
            return f"leaves out its {kind} {i + 1}, {formal_name}, which it must have"
    return ""


def _misstated(node: onnx.NodeProto, schema: _Schema) -> str:
    stated = [attribute.name for attribute in node.attribute]
    foreign = [
        name for name in stated if name not in schema.attributes and not name.startswith("__")
    ]  # a runtime's own
    if as_inputs := [name for name in foreign if name in dict(schema.inputs)]:
        return (
            f"has {_attributes(as_inputs)}, and takes {'it as an input' if len(as_inputs) == 1 else 'these as inputs'}"
        )
    if foreign:
        nearest = get_close_matches(foreign[0], schema.attributes, n=len(schema.attributes) or 1, cutoff=0.0)
        return f"has {_attributes(foreign)}, and takes {'only ' + listed(nearest, _FEW) if nearest else 'none'}"
    if twice := next((name for name in stated if stated.count(name) > 1), ""):
        return f"states {_attributes([twice])} more than once, and takes it once"
    missing = [name for name, required in schema.attributes.items() if required and name not in stated]
    if missing:
        return f"lacks {_attributes(missing)}, which it must have"
    return ""


def _attributes(names: Sequence[str]) -> str:
    return f"the attribute{'s' if len(names) > 1 else ''} {listed([one_line(name, 80) for name in names], _FEW)}"


def _unfit_bodies(node: onnx.NodeProto, schema: _Schema) -> str:
    """Return how the graphs that a node of control flow holds do not fit its own inputs and outputs in number."""
    stated = {attribute.name: attribute for attribute in node.attribute}
    if any(attribute.ref_attr_name for attribute in node.attribute):  # in a function: another one at each call
        return ""
    taken, given = len(node.input), len(node.output)
    match node.op_type:
        case "If":
            expected = {"then_branch": (0, given), "else_branch": (0, given)}
        case "Loop":  # iteration and condition are inputs of the body too, and the condition is an output
            expected = {"body": (taken, given + 1)}
        case "Scan":
            taken -= schema.inputs[0][0] == "sequence_lens"  # of opset 8
            scanned = stated["num_scan_inputs"].i
            if not 1 <= scanned <= taken:
                return f"states {number_of(scanned, 'scan input')}, and has {number_of(taken, 'input')}"
            expected = {"body": (taken, given)}
        case "SequenceMap":
            expected = {"body": (taken, given)}
        case _:
            return ""
    for name, counts in expected.items():
        if words := _unfit_body(name, stated[name].g, *counts):
            return words
    return ""


def _unfit_body(name: str, body: onnx.GraphProto, inputs: int, outputs: int) -> str:
    initialized = {tensor.name for tensor in body.initializer}
    open_inputs = [value for value in body.input if value.name not in initialized]
    if inputs not in (len(body.input), len(open_inputs)):
        return f"has a {name} of {number_of(len(body.input), 'input')}, and passes it {inputs}"
    if outputs != len(body.output):
        return f"has a {name} of {number_of(len(body.output), 'output')}, and takes {outputs} from it"
    return ""


def _advice(node: onnx.NodeProto, domain: str, opset: int) -> str:
    """Return at which opset the node could be as it is written, and what to do."""
    versions = _history()[domain, node.op_type]
    ends = [schema.since - 1 for schema in versions[1:]] + [_ANY]
    fitting = [
        (schema.since, end)
        for schema, end in zip(versions, ends, strict=True)
        if not schema.removed and not _misfit(node, schema)
    ]
    newer = [first for first, _ in fitting if first > opset]
    older = [last for _, last in fitting if (1 if domain else OLDEST_OPSET) <= last < opset]
    if newer:
        return f"export the model at {_opsets(domain, newer[0])} or newer, which has the node as it is written"
    if older:
        before, here = _opsets(domain, older[-1]), _opsets(domain, opset)
        return f"export the model at {before} or older, which has the node as it is written, or correct what wrote it for {here}"
    return "correct what wrote it, and export the model anew: no opset has it as it is written"


def _lifetime(domain: str, versions: Sequence[_Schema]) -> str:
    """Return since when, or until when, an operator is one."""
    if versions[-1].removed:
        return f"the standard had it up to {_opsets(domain, versions[-1].since - 1)}"
    return f"the standard has it since {_opsets(domain, versions[0].since)}"


def _opsets(domain: str, opset: int) -> str:
    return f"version {opset} of {domain}" if domain else f"opset {opset}"
