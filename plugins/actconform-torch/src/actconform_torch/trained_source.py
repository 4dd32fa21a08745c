"""A user's torch model opened: what a factory gives, a program of torch.export (.pt2), or a module of TorchScript."""

from __future__ import annotations

import inspect
import os
import zipfile
from collections.abc import Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from actconform import SourceError, Unsupported
from actconform.plugin.user_factory import described, fault_with_lines, frameworks_of, made_by_factory
from actconform.text import one_line
from actconform_torch.module_state import is_training
from actconform_torch.untrusted_files import code_of_pickle, code_of_program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actconform.types.trained import TrainedSource

OTHERS = {
    "keras": "a Keras model",
    "tf_keras": "a Keras model",
    "tensorflow": "a TensorFlow model",
    "flax": "a Flax model",
    "equinox": "an Equinox model",
    "jax": "a function of JAX",
    "jaxlib": "a function of JAX",
}
WANTED = "wanted a torch.nn.Module, or a tuple of one and its example inputs"
TRUST = "If you trust who made it, say so: --trust"
_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
FACTORY = 'name a factory "package.module:function" that makes the module and loads the weights'


class Opened(NamedTuple):
    """A module, ready to be called, with the example inputs that came with it."""

    module: torch.nn.Module
    signature: inspect.Signature
    example: object = None
    program: torch.export.ExportedProgram | None = None
    """What a .pt2 file holds, of which `module` is made."""
    notes: tuple[str, ...] = ()


def opened_source(source: TrainedSource) -> Opened:
    """Return what a user names, opened; raise SourceError or Unsupported as `Backend.open_trained` does."""
    if source.kind == "factory":
        return opened_object(made_by_factory(source, _is_any_model), name=source.text)
    path = Path(source.folder, source.text)
    if not path.is_file():
        raise SourceError(f"no such file: {one_line(str(path))}")
    if source.kind == "torchscript":
        return _torchscript(path, source)
    if source.kind == "pt2":
        return _exported_program(path, source)
    raise Unsupported(f"torch opens no {source.kind}")


def opened_object(value: object, example: object = None, name: str = "the model") -> Opened:
    """Return a module of the user's, or a tuple of one and example inputs, opened: not copied."""
    if isinstance(value, tuple | list) and len(value) == 2 and (_is_module(value[0]) or _framework_of(value[0])):
        value, example = value[0], value[1] if example is None else example
    if isinstance(value, torch.export.ExportedProgram):
        return _of_program(value)
    if not isinstance(value, torch.nn.Module):
        raise _no_module(value, name)
    notes = []
    if isinstance(original := getattr(value, "_orig_mod", None), torch.nn.Module):
        value = original
        notes.append("compiled by torch.compile: the module that was compiled is run as it is")
    for path, weight in (*value.named_parameters(), *value.named_buffers()):
        if isinstance(weight, torch.nn.parameter.UninitializedTensorMixin):
            raise SourceError(f"{name}: {path} has no shape yet: call the model once in the factory")
        if weight.is_meta:
            raise SourceError(f"{name}: {path} is on the device meta, which holds no values: load the weights")
    if is_training(value):
        notes.append(
            "it was left in training mode: it is run as in inference, after eval(), unless training is asked for"
        )
    return Opened(
        value, _signature_of(value), example if example is not None else _own_example(value), notes=tuple(notes)
    )


def _signature_of(module: torch.nn.Module) -> inspect.Signature:
    """Return the signature of `forward` without self, of TorchScript as its schema says."""
    schema = getattr(module.forward, "schema", None)
    if schema is None:
        return inspect.signature(module.forward)
    parameters = [
        inspect.Parameter(
            argument.name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=argument.default_value if argument.has_default_value() else inspect.Parameter.empty,
        )
        for argument in schema.arguments[1:]
    ]
    return inspect.Signature(parameters)


def _is_module(value: object) -> bool:
    return isinstance(value, torch.nn.Module | torch.export.ExportedProgram)


def _is_any_model(value: object) -> bool:
    """Whether it is a model of some framework: no factory, then."""
    return _is_module(value) or (not isinstance(value, type) and bool(_framework_of(value)))


def _no_module(value: object, name: str) -> Exception:
    if framework := _framework_of(value):
        return Unsupported(f"{name} gives {framework} ({described(value)}), not torch's")
    if isinstance(value, tuple | list):
        kinds = ", ".join(described(part) for part in value[:4])
        refusal = Unsupported if len(value) == 2 and _is_function(value[0]) else SourceError
        return refusal(f"{name} gives {described(value)} of {len(value)} ({kinds}): {WANTED}")
    if isinstance(value, type) and issubclass(value, torch.nn.Module):
        return SourceError(f"{name} gives the class {value.__qualname__}, not a model: call it; {WANTED}")
    if isinstance(value, Mapping) and any(isinstance(part, torch.Tensor) for part in value.values()):
        return SourceError(f"{name} gives weights alone, a dict of {len(value)}: load them into the module; {WANTED}")
    refusal = Unsupported if _is_function(value) else SourceError
    return refusal(f"{name} gives {described(value)}: {WANTED}")


def _is_function(value: object) -> bool:
    """Whether it may be a model of a framework whose models are functions."""
    return callable(value) and not isinstance(value, type)


def _framework_of(value: object) -> str:
    """Return of which other framework a model is, in words; "" where it is of none that is known."""
    return next((OTHERS[package] for package in frameworks_of(value) if package in OTHERS), "")


def _own_example(module: torch.nn.Module) -> object:
    """Return the example that a module has: Lightning's `example_input_array`, transformers' `dummy_inputs`."""
    for attribute in ("example_input_array", "dummy_inputs"):
        # It may be a property, of the user's or of a library, that raises: there is none then.
        with suppress(Exception):
            example = getattr(module, attribute, None)
            if example is not None:
                return example
    return None


def _exported_program(path: Path, source: TrainedSource) -> Opened:
    names = _archive_names(path, source)
    if not any(name.endswith(("archive_format", "serialized_exported_program.json")) for name in names):
        raise _no_program(path, names, source)
    if not source.trusted and (code := code_of_program(path)):
        raise SourceError(f"{path.name} would run code of its own when it is loaded: {code}. {TRUST}")
    try:
        with nullcontext() if source.trusted else _weights_alone():
            program = torch.export.load(path)
    except Exception as error:
        if isinstance(error, MemoryError):
            raise
        raise SourceError(f"{path.name} cannot be loaded by torch.export: {fault_with_lines(error)}") from error
    return _of_program(program)


def _of_program(program: torch.export.ExportedProgram) -> Opened:
    module: torch.nn.Module
    try:
        module = torch.export.unflatten(program)
    except Exception:  # noqa: BLE001  then without its submodules
        module = program.module()
    notes = ("a program of torch.export: it computes in the mode in which it was exported",)
    names = list(inspect.signature(program.module().forward).parameters)
    args, keywords = program.example_inputs or ((), {})
    positional = len(args) if program.example_inputs else len(names)
    parameter = inspect.Parameter
    signature = inspect.Signature(
        [
            parameter(name, parameter.POSITIONAL_OR_KEYWORD if place < positional else parameter.KEYWORD_ONLY)
            for place, name in enumerate(names)
        ]
    )
    example = dict(zip(names, args, strict=False)) | dict(keywords) if program.example_inputs else None
    return Opened(module, signature, example, program, notes)


def _torchscript(path: Path, source: TrainedSource) -> Opened:
    names = _archive_names(path, source)
    if not any(name.endswith("constants.pkl") for name in names):
        raise _no_program(path, names, source)
    if not source.trusted:
        raise SourceError(f"{path.name} is TorchScript, which runs code that is in the file. {TRUST}")
    try:
        module = torch.jit.load(path, map_location="cpu")
    except RuntimeError as error:
        raise SourceError(f"{path.name} cannot be loaded by torch.jit: {one_line(str(error), 300)}") from error
    return opened_object(module, name=path.name)


def _archive_names(path: Path, source: TrainedSource) -> list[str]:
    """Return the names of the files in an archive of torch's; raise SourceError where it is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        start = path.read_bytes()[:2]
        if start[:1] == b"\x80":  # a pickle, as torch wrote before 1.6
            raise _of_pickle(path, path.read_bytes(), source) from None
        raise SourceError(f"{path.name} is no archive of torch's, or is damaged: {one_line(str(error))}") from None


def _no_program(path: Path, names: list[str], source: TrainedSource) -> SourceError:
    """Return what is said of an archive that holds something else: weights alone, a pickled module, the other kind of program."""
    if any(name.endswith("constants.pkl") for name in names):
        return SourceError(f"{path.name} is TorchScript, not a program of torch.export: call it *.pt or *.ts")
    if any(name.endswith("archive_format") for name in names):
        return SourceError(f"{path.name} is a program of torch.export, not TorchScript: call it *.pt2")
    pickles = [name for name in names if name.endswith("data.pkl")]
    if not pickles:
        return SourceError(f"{path.name} holds no model of torch's: {FACTORY}")
    with zipfile.ZipFile(path) as archive:
        return _of_pickle(path, archive.read(pickles[0]), source)


def _of_pickle(path: Path, data: bytes, source: TrainedSource) -> SourceError:
    try:
        code = code_of_pickle(data)
    except Exception as error:  # pickletools raises whatever the bytes lead to  # noqa: BLE001
        return SourceError(f"{path.name} is a damaged pickle: {one_line(str(error), 200)}")
    if not code:
        return SourceError(f"{path.name} holds weights alone, and no model to run them: {FACTORY}")
    allowed = "even where it is trusted its classes must be importable" if source.trusted else "it is not loaded"
    return SourceError(
        f"{path.name} is a pickle that calls {one_line(code, 80)} when it is loaded: {allowed}; {FACTORY}"
    )


@contextmanager
def _weights_alone() -> Iterator[None]:
    """Keep torch from unpickling anything but weights: torch.export.load would, where they alone do not do."""
    before = os.environ.get(_WEIGHTS_ONLY)
    os.environ[_WEIGHTS_ONLY] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_WEIGHTS_ONLY]
        else:
            os.environ[_WEIGHTS_ONLY] = before
