"""`actconform.lint`: the known mistakes of a model, from Python."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actconform.api.given import GivenFiles
from actconform.errors import UsageError
from actconform.files import temporary_folder
from actconform.linting.session import PREFIX, LintRequest, lint_source
from actconform.plugin.loader import load_plugins
from actconform.settings import read_config
from actconform.workers.from_settings import configured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.types.lint import LintResult


def lint(
    model: Any,
    *,
    inputs: Any = None,
    targets: str | Path | None = None,
    loss: str | Sequence[str] = (),
    runtimes: Sequence[str] = (),
    exporter: str | None = None,
    ignore: Sequence[str] = (),
    trust: bool = False,
    config: str | Path | None = None,
) -> LintResult:
    """Return what `actconform lint` says of a model: `findings`, each with `code`, `severity`, `node` and `message`, and `clean`.

    `model` is a path, "package.module:factory", an onnx.ModelProto, a torch module, a Keras or a JAX model; `inputs` as `actconform.check` takes
    them; the rest as the options of the command. Raises UsageError for what the caller must change.
    """
    settings = read_config(None if config is None else Path(config))
    catalog = configured(load_plugins(judging=False), settings)
    with ExitStack() as stack:
        folder = temporary_folder(PREFIX)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        memory = GivenFiles(folder, catalog, settings.timeout)
        try:
            source = memory.model(model, "model", inputs)
            request = LintRequest(
                source=source,
                inputs=memory.inputs(inputs, source),
                targets=None if targets is None else Path(targets),
                losses=(loss,) if isinstance(loss, str) else tuple(loss),
                runtimes=tuple(runtimes),
                exporter=exporter,
                ignore=tuple(ignore),
                trust=trust,
            )
            return lint_source(request, catalog, settings, live=memory.live).result
        except UsageError as error:
            raise type(error)(memory.in_words(str(error))) from error
