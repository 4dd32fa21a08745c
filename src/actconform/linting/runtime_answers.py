"""What runtimes say of a model's opset and IR version, asked with a graph of one Identity."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper

from actconform.checking.model_file import ModelFile
from actconform.checking.open_runtime import open_runtime
from actconform.checking.runs import RunFailure
from actconform.errors import UsageError
from actconform.linting.linted_model import RuntimeAnswer
from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx

    from actconform.checking.source import Source
    from actconform.plugin.loader import Catalog
    from actconform.settings import Config


def runtime_answers(
    runtimes: Sequence[str],
    source: Source,
    catalog: Catalog,
    config: Config,
    say: Callable[[str], None],
    timeout: float | None = None,
) -> list[RuntimeAnswer]:
    """Return what each runtime says when it is to load one Identity in the opsets and the IR version of the model.

    Raises UsageError for a runtime that there is not, or that is not usable here.
    """
    if not runtimes:
        return []
    answers = []
    with ExitStack() as stack, ModelFile(_identity(source)) as file:
        for name in dict.fromkeys(runtimes):
            runs = stack.enter_context(open_runtime(name, catalog, config, say, timeout=timeout))
            facts = runs.start()
            if isinstance(facts, RunFailure):
                raise UsageError(f"--runtime {name}: {one_line(facts.message)}")
            outputs = runs.outputs(file, {"x": np.zeros((1,), np.float32)})
            refusal = outputs.failure.message if outputs.failure else ""
            version = next((facts[package] for package in runs.packages if package in facts), "")
            answers.append(RuntimeAnswer(name, one_line(version, 80), refusal))
    return answers


def _identity(source: Source) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", values[:1], values[1:])
    model: onnx.ModelProto = helper.make_model(
        graph, opset_imports=list(source.model.opset_import), ir_version=source.model.ir_version
    )
    return model
