"""`actconform.check`: the check of the command line, called from Python, of files and of models in memory."""

from __future__ import annotations

import shutil
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

from actconform.api.checked_model import CheckedModel
from actconform.api.given import GivenFiles
from actconform.api.options import CheckOptions, expect_known
from actconform.checking.session import CheckRequest, FailedExport, check_graphs
from actconform.errors import UsageError
from actconform.files import temporary_folder
from actconform.plugin.loader import load_plugins
from actconform.report.check.check_files import write_check
from actconform.report.check.exports import collect_exports
from actconform.report.terminal.check_progress import CheckProgress
from actconform.report.terminal.console import open_console
from actconform.say import say
from actconform.settings import read_config
from actconform.workers.from_settings import configured

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from actconform.checking.checked_sample import Progress
    from actconform.checking.result import OutputCheck
    from actconform.checking.session import CheckedGraph

PREFIX = "actconform-given-"


def check(
    model: Any,
    *,
    against: Any = (),
    inputs: Any = None,
    out: str | Path | None = None,
    html: bool = False,
    minimize: bool = False,
    progress: bool = False,
    **options: Unpack[CheckOptions],
) -> CheckedModel:
    """Return whether runtimes and frameworks compute a model as rounding allows, as `actconform check` does; the result is true where they do.

    `model` is whatever the command takes (a path, "package.module:factory"), an onnx.ModelProto, a torch module, a Keras or a JAX model of
    this process. `against` is one of these or several in a list: what was trained; or outputs that were saved, a path or a dict of arrays. `inputs`
    are a path, a dict of arrays by name (one sample), a list of such dicts, a tuple in the model's order, or an array for a model of one
    input; without them inputs are drawn. Arrays may be tensors of a framework. All other `options` are those of the command: see
    `CheckOptions`.

    Without `out` no file is left behind. With it check.json, drawn inputs, with `html` a page, and with `minimize` the smallest model
    that shows the first fault are written there, and exports into folders of their own. `progress` shows a bar on standard error.

    A model of this process is run here, not in a worker: a crash of the framework ends the process, and `timeout` does not hold for it.
    Weights, modes and random states are left as they were.

    Raises UsageError, saying what to do, for what the user must change; OSError where a file cannot be written; TypeError for an
    option that there is none of.
    """
    expect_known(options, "check")
    if minimize and out is None:
        raise UsageError("minimize=True writes a folder: name one with out=")
    config = options.pop("config", None)
    in_memory = _is_in_memory(model, against, inputs, options)
    settings = read_config(None if config is None else Path(config))
    catalog = configured(load_plugins(), settings)
    with ExitStack() as stack:
        folder = temporary_folder(PREFIX)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        memory = GivenFiles(folder, catalog, options.get("timeout") or settings.timeout)
        hears: Progress = stack.enter_context(CheckProgress(open_console(to_stderr=True))) if progress else _Silent()
        files = None if out is None else _Files(Path(out), inputs=inputs is None, html=html, minimize=minimize)
        try:
            source = memory.model(model, "model", inputs)
            request = _request(options, memory)._replace(
                source=source,
                against=tuple(memory.against(against)),
                inputs=memory.inputs(inputs, source),
                out=folder / "exports" if out is None else Path(out),
                config=None if config is None else Path(config),
                in_memory=in_memory,
            )
            graphs = check_graphs(request, catalog, settings, hears, _say_aside, live=memory.live)
            return _checked_model(stack.enter_context(closing(graphs)), files)
        except UsageError as error:
            raise type(error)(memory.in_words(str(error))) from error


def _is_in_memory(model: Any, against: Any, inputs: Any, options: CheckOptions) -> bool:
    """Return whether anything is given other than by its path or name."""
    beside = against if isinstance(against, list | tuple) else [against]
    given = (model, inputs, options.get("data"), options.get("metric"), *beside)
    return not all(each is None or isinstance(each, str | Path) for each in given)


def _request(options: CheckOptions, memory: GivenFiles) -> CheckRequest:
    """Return the options as a check takes them, of no model yet."""
    plain: dict[str, Any] = dict(options)
    for name in ("runtimes", "exporters", "ranges"):
        plain[name] = _several(plain.get(name, ()))
    plain["data"] = memory.data(plain.get("data"))
    return CheckRequest(source="", **plain)


class _Files(NamedTuple):
    """What is written, and where."""

    folder: Path
    inputs: bool
    html: bool
    minimize: bool


def _checked_model(graphs: Iterable[CheckedGraph | FailedExport], files: _Files | None) -> CheckedModel:
    """Return what came of all graphs, and write their files while their runtimes are open."""
    wrote: list[str] = []

    def write(graph: CheckedGraph) -> None:
        if files is not None:
            folder = files.folder / graph.folder
            wrote.extend(write_check(graph, folder, inputs=files.inputs, html=files.html, minimize=files.minimize))

    exports = collect_exports("", graphs, write).exports
    return CheckedModel(
        tuple(export.result for export in exports if export.result is not None),
        tuple(FailedExport(export.exporter, export.failure) for export in exports if export.result is None),
        tuple(wrote),
    )


def _several(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _say_aside(text: str) -> None:
    say(text, err=True)


class _Silent:
    """Hears how far a check is, and says nothing."""

    def stage(self, name: str, total: int = 0) -> None:
        pass

    def step(self, count: int = 1) -> None:
        pass

    def outputs(self, runtime: str, outputs: Sequence[OutputCheck]) -> None:
        pass
