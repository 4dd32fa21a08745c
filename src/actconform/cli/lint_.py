"""`actconform lint`: the known mistakes of models, told before anything runs."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from actconform.cli import _completion, _options, announced
from actconform.errors import PluginError, UsageError
from actconform.plugin.loader import load_plugins
from actconform.say import say
from actconform.settings import read_config
from actconform.text import number_of, one_line, visible
from actconform.types.lint import SEVERITIES
from actconform.workers.from_settings import configured

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actconform.linting.session import LintedSource, LintRequest
    from actconform.plugin.loader import Catalog
    from actconform.types.lint import LintResult


@click.command("lint")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--inputs", type=click.Path(path_type=Path), help="Samples, as `check` takes them: dead and saturated units."
)
@click.option(
    "--targets", type=click.Path(path_type=Path), help="Targets of the training: .npy, .npz by output, a folder."
)
@click.option("--loss", "losses", multiple=True, help="By which it is trained: CrossEntropyLoss, mse ... (repeatable).")
@click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    shell_complete=_completion.runtimes,
    help="Ask a runtime whether it loads the opset (repeatable).",
)
@click.option(
    "--exporter",
    shell_complete=_completion.exporters,
    help="Of a trained MODEL: torch-dynamo, tf2onnx ... (default: the first that makes a graph).",
)
@click.option(
    "--ignore",
    multiple=True,
    shell_complete=_completion.lint_rules,
    help="Leave out a rule, or its findings at some nodes: AC102:/gate/* (repeatable).",
)
@click.option(
    "--fix",
    "fixed",
    type=click.Path(path_type=Path),
    help="Write a copy of an ONNX file with what can safely be repaired.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--rules", "lists_rules", is_flag=True, help="List all rules and end.")
@_options.trust
@click.option("--timeout", type=click.FloatRange(min=1.0), help="Seconds that a framework or runtime may take at once.")
@_options.config
def command(
    models: tuple[str, ...],
    inputs: Path | None,
    targets: Path | None,
    losses: tuple[str, ...],
    runtimes: tuple[str, ...],
    exporter: str | None,
    ignore: tuple[str, ...],
    fixed: Path | None,
    as_json: bool,
    lists_rules: bool,
    trust: bool,
    timeout: float | None,
    config_path: Path | None,
) -> int:
    """Tell the known mistakes of each MODEL: an ONNX file, package.module:factory, .keras, .pt2 ...; nothing is run but for --inputs.

    Rules are about activations (softmax over one unit, in a hidden layer, twice, beside a loss from logits) and about exports (training mode, a baked
    batch size, float64, overflowed float16). An ONNX file is read as it is; a trained model is exported first.

    Exit code 0: no error and no warning (notes do not count); 1: there are; 2: wrong usage, or a file that cannot be read, after all others were linted.
    """
    from actconform.linting.registry import OWN_RULES
    from actconform.linting.session import LintRequest, lint_source
    from actconform.report.terminal.console import open_console
    from actconform.report.terminal.lint_screen import print_lint, print_rules

    config = read_config(config_path)
    catalog = configured(announced(load_plugins(judging=False)), config)
    if lists_rules:
        print_rules(open_console(), (*OWN_RULES, *catalog.lint_rules))
        return 0
    if not models:
        raise click.UsageError("MODEL is missing: an ONNX file, package.module:factory, .keras ..., or --rules")
    if fixed is not None and len(models) > 1:
        raise click.UsageError("--fix writes the copy of one file: name one MODEL")
    target = _expect_target(fixed, models[0], trusted=trust)
    requests = [
        LintRequest(model, inputs, targets, losses, runtimes, exporter, ignore, trust, timeout=timeout)
        for model in dict.fromkeys(models)
    ]
    lint = partial(lint_source, catalog=catalog, config=config, say=partial(say, err=True))
    if len(requests) > 1:
        return _lint_several(requests, lint, as_json=as_json)
    linted = lint(requests[0])
    if as_json:
        sys.stdout.buffer.write(_printed(_document(linted.result)))
    else:
        print_lint(open_console(), linted.result)
    if target is not None:
        _write_fixed(linted, target, inputs, catalog, quiet=as_json)
    return 0 if linted.result.clean else 1


def _lint_several(
    requests: Sequence[LintRequest], lint: Callable[[LintRequest], LintedSource], *, as_json: bool
) -> int:
    """Lint models one after another and return the exit code: one that cannot be read keeps no other from being linted."""
    from actconform.report.terminal.console import open_console
    from actconform.report.terminal.lint_screen import print_lint

    results: list[LintResult] = []
    unread: dict[str, str] = {}
    for request in requests:
        try:
            result = lint(request).result
        except UsageError as error:
            unread[one_line(request.source)] = str(error)
            continue
        except (OSError, PluginError):
            raise
        except Exception as error:  # noqa: BLE001  a mistake of a rule costs one model
            unread[one_line(request.source)] = _failed(request.source, error)
            continue
        results.append(result)
        if not as_json:
            print_lint(open_console(), result)
    if as_json:
        several = {"models": [_document(result) for result in results], "unread": unread}
        sys.stdout.buffer.write(
            _printed({"schema": 1, "clean": not unread and all(each.clean for each in results), **several})
        )
    for reason in dict.fromkeys(unread.values()):  # a mistake of usage is the same for all
        say(f"error: {visible(reason)}", err=True)
    clean = sum(result.clean for result in results)
    others = f", {len(unread):,} not linted" if unread else ""
    say(
        f"{number_of(len(requests), 'model')}: {clean:,} clean, {len(results) - clean:,} not clean{others}", err=as_json
    )
    return 2 if unread else 0 if clean == len(results) else 1


def _failed(source: str, error: Exception) -> str:
    shown = one_line(source)
    return (
        f"{shown}: a mistake in actconform keeps it from being linted: {type(error).__name__}: {one_line(str(error), 300)}; "
        f"report it with what `actconform lint {shown}` alone prints"
    )


def _document(result: LintResult) -> dict[str, object]:
    counts = {severity: result.count(severity) for severity in SEVERITIES}
    return {"schema": 1, "clean": result.clean, **counts, **msgspec.to_builtins(result)}


def _printed(document: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def _expect_target(fixed: Path | None, model: str, *, trusted: bool) -> Path | None:
    """Return the file that --fix writes. Raises UsageError where it cannot be one."""
    from actconform.checking.trained.sources import named_source

    if fixed is None:
        return None
    if named_source(model, trusted=trusted).kind != "onnx":
        raise UsageError("--fix repairs ONNX files: export the model, then name the file")
    shown = f"--fix {one_line(str(fixed))}"
    if not str(fixed).strip(".") or fixed.is_dir():
        raise UsageError(f"{shown}: is a folder: name a file that ends in .onnx")
    if fixed.exists() and not fixed.is_file():
        raise UsageError(f"{shown}: is no regular file: name another")
    if Path(model).exists() and fixed.exists() and fixed.samefile(model):
        raise UsageError(f"{shown}: is the model that is read: name another file")
    if not fixed.parent.is_dir():
        raise UsageError(f"{shown}: there is no folder {one_line(str(fixed.parent))}")
    return fixed


def _write_fixed(linted: LintedSource, target: Path, inputs: Path | None, catalog: Catalog, *, quiet: bool) -> None:
    """Write the repaired model, where there is anything to repair, and say what was done."""
    import onnx
    from onnx.external_data_helper import uses_external_data

    from actconform.checking.inputs import read_samples
    from actconform.files import read_bytes, write_bytes
    from actconform.linting.fixes import fixed_model, output_changes
    from actconform.linting.registry import OWN_RULES
    from actconform.onnx.external import MOST_BYTES
    from actconform.onnx.gates import tensors

    path = linted.model.source.path
    original = onnx.load_from_string(read_bytes(path, MOST_BYTES))
    if target.parent.resolve() != path.parent.resolve() and any(map(uses_external_data, tensors(original))):
        raise UsageError(
            f"--fix {one_line(str(target))}: weights lie in files beside {one_line(str(path))}, and are found from its folder alone: name a file there"
        )
    rules = (*OWN_RULES, *catalog.lint_rules)
    fixed = fixed_model(linted.model, linted.result.findings, rules, original)
    if not fixed.fixes:
        say("--fix: there is nothing that can safely be repaired; nothing was written", err=quiet)
        return
    for fix in fixed.fixes:
        say(one_line(f"FIXED   {fix.code}  {fix.node}: {fix.change}"), err=quiet)
    if inputs is not None:
        sample = read_samples(inputs, linted.model.source).samples[0].arrays
        for change in output_changes(linted.model, fixed, sample):
            say(one_line(f"        {change.output}: {change.words}"), err=quiet)
    try:
        write_bytes(target, fixed.model.SerializeToString())
    except OSError as error:
        raise UsageError(f"--fix {one_line(str(target))}: cannot be written: {error.strerror}") from error
    changes = f"{number_of(len(fixed.fixes), 'change')}"
    say(one_line(f"WROTE   {target}: {changes}, valid by onnx's checker"), err=quiet)
