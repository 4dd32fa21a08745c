"""The program that exports one layer of a trained model alone and compares: it needs the framework, the exporter and a runtime, no actconform."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from actconform.checking import layer_standalone
from actconform.checking.copied_text import Copied, module_text
from actconform.text import one_line

if TYPE_CHECKING:
    from actconform.types.trained import LayerCall, TrainedSource

PROGRAM = '''"""{title}

Loads {shown}, exports one layer of it alone with {exporter}, and compares the graph with the layer. Run it in the directory from which the
model is loaded: `python repro.py` ends with 1 while they differ, with 0 once they do not, with 2 where something is missing or cannot be run.
`python repro.py layer.onnx` keeps the graph.
"""

from __future__ import annotations

{standard}

sys.path.insert(0, os.getcwd())  # noqa: PTH109
try:
{others}
except ImportError as missing:
    print(f"{{missing}}: it takes {packages}", file=sys.stderr)
    sys.exit(2)

SOURCE = {source!r}
KIND = {kind!r}
LAYER = {layer!r}
TRUSTED = {trusted!r}
PACKAGES = {packages!r}


def call(layer{parameters}):
    return layer({arguments})


{body}


def main() -> int:
    print(versions(PACKAGES))
    folder = Path(__file__).resolve().parent
    try:
        inputs = layer_inputs(folder)
        layer = layer_at(opened(SOURCE, KIND, trusted=TRUSTED), LAYER)
        native = computed(layer, call, inputs)
        with tempfile.TemporaryDirectory() as place:
            path = sys.argv[1] if len(sys.argv) > 1 else str(Path(place, "layer.onnx"))
            export_layer(layer, call, inputs, path)
            got = list(run(path, graph_inputs(path, inputs), "").values())
        return compared(folder, native, got)
    except (Exception, SystemExit):
        traceback.print_exc()
        return 2


if __name__ == "__main__":
    sys.exit(main())
'''
IMPORTS = {"import os", "import sys", "import tempfile", "import traceback", "from pathlib import Path"}
USED = {"layer_inputs", "graph_inputs", "compared", "versions"}
OF_FRAMEWORK = {"opened", "layer_at", "computed", "export_layer"}


class LayerExport(NamedTuple):
    """Who exports one layer of a trained model, and who runs its graph."""

    exporter: str
    framework: str
    """Source of `Exporter.layer_reproduction`."""
    runtime: str
    """Source of `Backend.reproduction`."""
    packages: tuple[str, ...]
    """That take part, for their versions."""


def layer_program(title: str, source: TrainedSource, named: str, call: LayerCall, export: LayerExport) -> str:
    """Return the text of the program; `named` is the source as the user names it."""
    common, framework, runtime = Copied(), Copied(), Copied()
    common.add(module_text(layer_standalone.__name__))
    framework.add(export.framework)
    runtime.add(export.runtime)
    texts = (
        framework.text(OF_FRAMEWORK, common.names()),
        runtime.text(set(), common.names() | framework.names()),
        common.text(USED, set()),
    )
    body = "\n\n\n".join(texts)
    common.imports |= framework.imports | runtime.imports | IMPORTS
    standard, _, others = common.import_lines(f"{body}\nos tempfile traceback").partition("\n\n")
    return PROGRAM.format(
        title=_plain(title),
        shown=_plain(named),
        exporter=_plain(export.exporter),
        standard=standard,
        others="\n".join(f"    {line}" for line in others.splitlines()),
        packages=export.packages,
        source=named,
        kind=source.kind,
        layer=call.path,
        trusted=source.trusted,
        parameters="".join(f", input_{k}" for k in range(len(call.inputs))),
        arguments=call.arguments,
        body=body,
    )


def _plain(text: str) -> str:
    """Return foreign text as a docstring can hold it."""
    return one_line(text).replace("\\", "/").replace('"', "'")
