"""The goldens on disk: a manifest, flat .npy tensors, and nothing else. A flipped bit is an error that names its file."""

from __future__ import annotations

import hashlib
import math
import os
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import numpy as np

from actconform.errors import GoldenError, NoGoldens
from actconform.files import GIB, read_bytes
from actconform.testdata.regimes import TensorGroup  # noqa: TC001  msgspec reads the annotations when it decodes
from actconform.types import Aspect  # noqa: TC001  msgspec reads the annotations when it decodes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from actconform.types import Kernel
    from actconform.types.model import Model
    from actconform.types.training import Experiment

Provable: TypeAlias = "Kernel | Model | Experiment"  # what has goldens

SCHEMA = 1
MANIFEST = "manifest.json"
THROUGHPUT = "throughput.json"  # ratios of times, which no manifest proves
OBSERVED = "observed.json"  # what the causes covered on machines measured: no truth
DTYPES = frozenset({"<f4", "<f8", "<i8", "<i4", "<u4", "<u2", "<f2", "|u1", "|b1"})  # numbers, never objects
MOST_OF_A_HEADER = 1 << 16
MAGIC = b"\x93NUMPY\x01\x00"  # .npy, version 1.0: then the header's length in two bytes, the header, the data


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One stored tensor: `sha256` is of its C-order little-endian bytes, `precision` how its numbers are known."""

    dtype: str
    shape: tuple[int, ...]
    sha256: str
    generator: str
    precision: str
    seed: str


class StoredSubject(msgspec.Struct, frozen=True, kw_only=True):
    """How a subject's flat tensors fall into groups, one a call, and the digests of its 16-bit tables: dtype -> aspect -> SHA-256."""

    draws: tuple[TensorGroup, ...]
    tables: dict[str, dict[Aspect, str]] = {}


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What the folder must hold, exactly: files by relative path, subjects by name."""

    schema: int
    files: dict[str, Entry]
    subjects: dict[str, StoredSubject]

    def home(self, subject: str, folder: Path) -> Path:  # noqa: ARG002  goldens of several folders know better
        """Return where a subject's files lie, `folder` being that of the manifest."""
        return folder


class Collected(Manifest, frozen=True, kw_only=True):
    """The manifests of several folders as one: of the package, and of the plugins that keep their own goldens in `homes`."""

    homes: dict[str, str]

    def home(self, subject: str, folder: Path) -> Path:
        return Path(self.homes[subject]) if subject in self.homes else folder


class _Schema(msgspec.Struct):
    schema: int


class Golden(msgspec.Struct, frozen=True):
    """The stored tensors of one subject, flat by name, and the groups into which they fall."""

    draws: tuple[TensorGroup, ...]
    tensors: dict[str, NDArray[Any]]

    def split(self) -> Iterator[tuple[str, dict[str, NDArray[Any]]]]:
        """Yield (regime, tensors in their shapes) group by group."""
        at = dict.fromkeys(self.tensors, 0)
        for draw in self.draws:
            tensors = {}
            for name, shape in draw.shapes.items():
                size = int(np.prod(shape))
                tensors[name] = self.tensors[name][at[name] : at[name] + size].reshape(shape)
                at[name] += size
            yield draw.regime, tensors


def golden_dir() -> Path:
    """Return the folder of goldens that came with the package: in a wheel beside this file, in a checkout at the top."""
    packaged = Path(__file__).parent / "data"
    return packaged if packaged.is_dir() else Path(__file__).parents[4] / "golden"


def digest(array: NDArray[Any]) -> str:
    """Return the SHA-256 of the array's C-order little-endian bytes."""
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    return hashlib.sha256(little.tobytes()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a folder; raise GoldenError where it is missing, unreadable or of another schema."""
    path = folder / MANIFEST
    try:
        text = read_bytes(path)
        schema = msgspec.json.decode(text, type=_Schema).schema  # alone: another schema need not fit Manifest
        if schema != SCHEMA:
            message = (
                f"{path}: schema {schema}, but this actconform reads schema {SCHEMA}: use the release that wrote it"
            )
            raise GoldenError(message)
        manifest = msgspec.json.decode(text, type=Manifest)
        _check(manifest, path)
    except FileNotFoundError:
        message = f"{path}: no such file; a folder of goldens has a manifest (write one with `actconform golden mint`)"
        raise GoldenError(message) from None
    except OSError as error:
        message = f"{path}: cannot be read: {error.strerror}"
        raise GoldenError(message) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"{path}: not a manifest of goldens: {error}"
        raise GoldenError(message) from error
    return manifest


def _check(manifest: Manifest, path: Path) -> None:
    """Raise GoldenError where a manifest leads out of its folder, or describes tensors that there cannot be."""
    for name, entry in manifest.files.items():
        parts = PurePosixPath(name).parts
        if PurePosixPath(name).is_absolute() or ".." in parts or "\0" in name or len(parts) < 2:
            raise GoldenError(f"{path}: {name!r} is no file of a subject in this folder: wanted SUBJECT/TENSOR.npy")
        if entry.dtype not in DTYPES or min(entry.shape, default=0) < 0 or _bytes(entry) > GIB:
            words = f"{entry.dtype!r} {list(entry.shape)}"
            wanted = f"{', '.join(sorted(DTYPES))} of no negative size and at most {GIB:,} bytes"
            raise GoldenError(f"{path}: {name!r} is a tensor of {words}: wanted {wanted}")
    for name, subject in manifest.subjects.items():
        if any(size < 0 for draw in subject.draws for shape in draw.shapes.values() for size in shape):
            raise GoldenError(f"{path}: the draws of {name!r} have negative sizes")


def _bytes(entry: Entry) -> int:
    return math.prod(entry.shape) * np.dtype(entry.dtype).itemsize


def collected(folder: Path, plugin_folders: Mapping[str, Path]) -> Manifest:
    """Return the manifest of the package's `folder` with those of plugins, whose `plugin_folders` go by subject.

    A plugin's folder that does not exist yet has no goldens. Raises GoldenError as `read_manifest` does, and for files that
    no manifest lists.
    """
    package = _complete_manifest(folder)
    files, subjects, homes = dict(package.files), dict(package.subjects), {}
    for place in dict.fromkeys(plugin_folders.values()):
        if not (place / MANIFEST).exists():
            continue
        manifest = _complete_manifest(place)
        for name in [name for name in manifest.subjects if plugin_folders.get(name) == place]:
            files = {path: entry for path, entry in files.items() if not path.startswith(f"{name}/")}
            files |= {path: entry for path, entry in manifest.files.items() if path.startswith(f"{name}/")}
            subjects[name], homes[name] = manifest.subjects[name], str(place)
    return Collected(schema=SCHEMA, files=files, subjects=subjects, homes=homes) if homes else package


def _complete_manifest(folder: Path) -> Manifest:
    """Return the manifest of a folder. Raises GoldenError as `read_manifest` does, and for files that it does not list."""
    manifest = read_manifest(folder)
    if extra := strangers(folder, manifest):
        raise GoldenError("\n".join(extra))
    return manifest


def read_golden_tensor(folder: Path, name: str, entry: Entry) -> NDArray[Any]:
    """Return one stored tensor, read-only, every byte of its file compared with its entry.

    Raises GoldenError naming the file, the digest of what it holds and the one in the manifest.
    """
    path = folder / name
    try:
        blob = read_bytes(path, _bytes(entry) + MOST_OF_A_HEADER)
    except FileNotFoundError:
        message = f"{path}: missing golden; the manifest lists it with SHA-256 {entry.sha256}"
        raise GoldenError(message) from None
    except OSError as error:
        message = f"{path}: golden cannot be read: {error.strerror}; the manifest lists it with SHA-256 {entry.sha256}"
        raise GoldenError(message) from error
    start = len(MAGIC) + 2 + int.from_bytes(blob[len(MAGIC) : len(MAGIC) + 2], "little")
    header, data = blob[:start], blob[start:]
    found_digest = hashlib.sha256(data).hexdigest()
    if header != _header(entry, start) or found_digest != entry.sha256:
        fault = "holds" if header == _header(entry, start) else "its header is another one; holds"
        message = (
            f"{path}: damaged golden: {fault} {len(data)} bytes of data with SHA-256 {found_digest}, "
            f"the manifest says {entry.dtype} {list(entry.shape)} with SHA-256 {entry.sha256}"
        )
        raise GoldenError(message)
    return np.frombuffer(data, entry.dtype).reshape(entry.shape)


def _header(entry: Entry, size: int) -> bytes:
    """Return the header of `size` bytes that NumPy writes for this entry.

    np.load would take a header with a flipped bit where it means the same, and fail on others in ways of its own.
    """
    text = f"{{'descr': {entry.dtype!r}, 'fortran_order': False, 'shape': {entry.shape}, }}".encode()
    length = size - len(MAGIC) - 2
    return MAGIC + length.to_bytes(2, "little") + text.ljust(length - 1) + b"\n"


@contextmanager
def computed(subject: str) -> Iterator[None]:
    """Turn what a subject's formulas raise within, which may be a plugin's, into a GoldenError; what is not installed stays what it is."""
    try:
        yield
    except (GoldenError, ImportError):
        raise
    except Exception as error:
        cause = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        message = (
            f"{subject}: its truth cannot be computed: {type(error).__name__}: {cause}; fix what is registered for it"
        )
        raise GoldenError(message) from error


def load(folder: Path, manifest: Manifest, subject: str) -> Golden:
    """Return the tensors of one subject, each compared with the manifest; raise GoldenError as `read_golden_tensor` does."""
    if subject not in manifest.subjects:
        message = f"{folder / MANIFEST}: no goldens for {subject!r}; write them with `actconform golden mint {subject}`"
        raise NoGoldens(message)
    folder = manifest.home(subject, folder)
    prefix = f"{subject}/"
    files = {name: entry for name, entry in manifest.files.items() if name.startswith(prefix)}
    tensors = {Path(name).stem: read_golden_tensor(folder, name, entry) for name, entry in files.items()}
    draws = manifest.subjects[subject].draws
    sizes = dict.fromkeys(tensors, 0)
    for draw in draws:
        for name, shape in draw.shapes.items():
            sizes[name] = sizes.get(name, 0) + math.prod(shape)
    if sizes != {name: array.size for name, array in tensors.items()}:
        stored_sizes = ", ".join(f"{name} {array.size}" for name, array in tensors.items())
        message = f"{folder / MANIFEST}: the draws of {subject!r} do not add up to its files, which hold {stored_sizes} numbers"
        raise GoldenError(message)
    return Golden(draws, tensors)


def strangers(folder: Path, manifest: Manifest) -> list[str]:
    """Return the files in the folder that the manifest does not list, as messages."""
    listed = {MANIFEST, THROUGHPUT, OBSERVED, *manifest.files}
    paths = (Path(top, name) for top, folders, names in os.walk(folder) for name in (*folders, *names))
    return [
        f"{path}: extra file, not in the manifest, {_about(path)}"
        for path in sorted(paths)
        if (path.is_symlink() or not path.is_dir()) and path.relative_to(folder).as_posix() not in listed
    ]


def _about(path: Path) -> str:
    try:
        return f"SHA-256 {hashlib.sha256(read_bytes(path)).hexdigest()}"
    except OSError as error:
        return f"which {error.strerror}" if path.exists() else "a link to nothing"
