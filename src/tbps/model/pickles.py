"""Reading the tensors of a PyTorch or safetensors file without executing anything in it.

`torch.save` and TorchScript both write a zip file:

    NAME/data.pkl   a pickle of dicts, lists and numbers, where a tensor is (storage, offset, shape, strides)
    NAME/data/7     the bytes of storage 7
    NAME/code/...   TorchScript only: the code of the model; never read

Before PyTorch 1.6, `torch.save` wrote five pickles one after another (a magic number, the version of the format, properties of the
machine, the object, the keys of the storages), then for each storage its number of elements in 8 bytes and its elements.

Each pickle is read by an unpickler that replaces a fixed list of allowed class and function names by inert values
(`tbps.model.unpickling`): a TorchScript module by its attributes, an `easydict.EasyDict` by a dict, a tensor by the location of its
elements. Any other name is refused. `torch.jit.load` is not used: it compiles the code in the archive and calls the `__setstate__`
methods defined there, which would execute untrusted code. `torch.load(weights_only=True)` is not used either: it hashes any value
used as a dict key, which a small file can make endless.

The amount of data read is limited by the size of the file: no storage is read twice, and all tensors together have at most 4 times
as many elements as their storages (tied weights share a storage).
"""

import io
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tbps.errors import ModelError
from tbps.model.unpickling import InertUnpickler, ScriptModule, Storage, Stored

_LONGEST_LIST = 8 * 2**20  # bytes of a zip file's directory: about 100,000 entries
_LONGEST_HEADER = 16 * 2**20  # bytes of the header of a safetensors file
_SHARED = 4  # most elements of all tensors per element of their storages
_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001  # of the format before PyTorch 1.6
_MODULES, _DEPTH = 1_000_000, 64

# Exceptions that unpickling a damaged or hostile file raises, from the documentation of `pickle` and by experiment.
_BROKEN = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)


@final
@dataclass(frozen=True)
class TensorFile:
    """Tensors of a model state by their names in the file, and whether the file is a TorchScript archive."""

    tensors: dict[str, torch.Tensor]
    torchscript: bool


def read_tensors(path: Path) -> TensorFile:
    """Reads the model state of a `.pt`, `.pth`, `.bin` or `.safetensors` file; the format is recognised by content.

    The state is the top-level object, or its entry "state_dict" or "model" as training scripts write it; other entries, such as an
    optimizer's, are not read. Raises ModelError if the file is missing, damaged or truncated, if its pickle contains a name that is
    not allowed (quoted in the message), or if the state is empty, contains values other than tensors, or exceeds a limit.
    """
    if not path.is_file():
        raise ModelError(
            f"{path} {'is not a file' if path.exists() else 'does not exist'}; give a checkpoint file or a model folder"
        )
    with path.open("rb") as file:
        head = file.read(9)
    torchscript = False
    if head.startswith(b"PK\x03\x04"):
        state, torchscript = _read_zip(path)
    elif head[8:] == b"{" or path.suffix == ".safetensors":
        state = dict(read_safetensors(path))
    else:
        state = _read_old(path)
    unnamed = [type(name).__name__ for name in state if not isinstance(name, str)]
    if unnamed:
        raise ModelError(f"{path} holds no model state: it has a {unnamed[0]} where the name of a tensor should be")
    foreign = [f"{name[:200]!r} is a {_kind(value)}" for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if foreign:
        raise ModelError(f"{path} holds other things than tensors where the model's state should be: {'; '.join(foreign[:8])}")
    if not state:
        raise ModelError(f"{path} holds no tensors: its model state is empty")
    return TensorFile(state, torchscript)


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Reads the tensors of a safetensors file. Raises ModelError if it is damaged or not a safetensors file."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if length > _LONGEST_HEADER:
            raise ModelError(f"{path} is damaged or not a safetensors file: its header would have {length:,} bytes")
        return load_file(path)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path} is damaged or not a safetensors file: {error}") from error


def _kind(value: object) -> str:
    return "dict" if isinstance(value, dict) else type(value).__name__


def _read_zip(path: Path) -> tuple[dict[Any, Any], bool]:
    try:
        _check_list(path)
        with zipfile.ZipFile(path) as archive:
            root = _root(archive)
            unpickler = InertUnpickler(io.BytesIO(archive.read(_plain(archive, f"{root}data.pkl"))), path)
            tree = unpickler.load()
            state = _state_of(tree, path)
            return _materialised(
                state, lambda storages: _of_zip(archive, root, storages, path.stat().st_size)
            ), unpickler.torchscript
    except _BROKEN as error:
        raise _damaged(path, error) from error


def _read_old(path: Path) -> dict[Any, Any]:
    try:
        with path.open("rb") as file:
            magic, version = (InertUnpickler(file, path).load() for _ in range(2))
            if (magic, version) != (_MAGIC, _VERSION):
                raise ModelError(f"{path} is not a checkpoint, or is damaged or truncated; fetch or copy it again")
            machine = InertUnpickler(file, path).load()
            if not isinstance(machine, dict) or machine.get("little_endian") is not True:
                raise ValueError("its numbers are big-endian; save it again on the machine that wrote it, as safetensors")
            unpickler = InertUnpickler(file, path)
            state = _state_of(unpickler.load(), path)
            keys = InertUnpickler(file, path).load()
            return _materialised(state, lambda wanted: _of_old(file, keys, unpickler.storages, wanted))
    except _BROKEN as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ModelError:
    reason = str(error)[:300] or type(error).__name__
    return ModelError(f"{path} is not a checkpoint, or is damaged or truncated ({reason}); fetch or copy it again")


def _check_list(path: Path) -> None:
    """Raises ValueError for a zip file whose directory is too long for a model, before the directory is read.

    The length of the directory is stored 12 bytes into the record that ends the file (which begins at most 65,557 bytes before the
    end), or 40 bytes into the larger zip64 record, which PyTorch writes too.
    """
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - 2**17))
        end = file.read()
    lengths = []
    for mark, place, width in ((b"PK\x05\x06", 12, 4), (b"PK\x06\x06", 40, 8)):
        found = end.rfind(mark)
        if found >= 0:
            lengths.append(int.from_bytes(end[found + place : found + place + width], "little"))
    if any(_LONGEST_LIST < length < 2**32 - 1 or length > 2**32 for length in lengths):
        raise ValueError(f"a zip file whose list of entries has {max(lengths):,} bytes")


def _root(archive: zipfile.ZipFile) -> str:
    names = archive.namelist()
    found = [name.removesuffix("data.pkl") for name in names if re.fullmatch(r"([^/]+/)?data\.pkl", name)]
    if len(found) != 1:
        raise ValueError(f"a zip file with {len(found)} pickles data.pkl; PyTorch writes one")
    if f"{found[0]}byteorder" in names and archive.read(_plain(archive, f"{found[0]}byteorder")) != b"little":
        raise ValueError("its numbers are big-endian; save it again on the machine that wrote it, as safetensors")
    return found[0]


def _plain(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """Returns the entry of a name. Raises ValueError if it is compressed.

    PyTorch never compresses, and an uncompressed entry cannot be larger than the file.
    """
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed, which PyTorch does not do")
    return entry


_Numbers = dict[str, torch.Tensor]


def _materialised(state: dict[Any, Any], read: Callable[[dict[str, Storage]], _Numbers]) -> dict[Any, Any]:
    """Replaces the `Stored` descriptions in a state by tensors. `read`: returns the elements of the given storages."""
    stored = [value for value in state.values() if isinstance(value, Stored)]
    storages: dict[str, Storage] = {}
    for value in stored:
        storages.setdefault(value.storage.key, value.storage)
        room = value.storage.count if value.storage.view is None else value.storage.view[1]
        if prod(value.shape) > room:
            raise ValueError(f"a tensor of shape {value.shape} in a storage of {room} numbers")
    numbers, held = sum(prod(value.shape) for value in stored), sum(storage.count for storage in storages.values())
    if numbers > _SHARED * held:
        raise ValueError(f"its tensors share {held:,} numbers so often that they would be {numbers:,}")
    held_by = read(storages)
    return {name: _tensor_of(value, held_by) if isinstance(value, Stored) else value for name, value in state.items()}


def _tensor_of(stored: Stored, held_by: _Numbers) -> torch.Tensor:
    if not stored.storage.count:
        return torch.empty(stored.shape, dtype=stored.storage.dtype)
    numbers = held_by[stored.storage.key]
    if stored.storage.view is not None:
        numbers = numbers[stored.storage.view[0] : sum(stored.storage.view)]
    return numbers.as_strided(stored.shape, stored.strides, numbers.storage_offset() + stored.offset)


def _of_zip(archive: zipfile.ZipFile, root: str, storages: dict[str, Storage], size: int) -> _Numbers:
    """Reads storages from a zip file. `size`: bytes of the file, which the storages must not exceed: entries of a hostile file may
    overlap.
    """
    if sum(storage.count * storage.dtype.itemsize for storage in storages.values()) > size:
        raise ValueError("its storages would be larger than the file")
    numbers = {}
    for key, storage in storages.items():
        if storage.count:
            numbers[key] = _numbers(archive.read(_plain(archive, f"{root}data/{key}")), storage)
    return numbers


def _of_old(file: BinaryIO, keys: Any, storages: dict[str, Storage], wanted: dict[str, Storage]) -> _Numbers:
    """Reads the wanted ones of the storages that follow one another in the order of `keys`; the others, such as an optimizer's, are
    skipped.
    """
    if (
        not isinstance(keys, list)
        or not all(isinstance(key, str) and key in storages for key in keys)
        or len(set(keys)) < len(keys)
    ):
        raise ValueError("its list of storages is not that of its tensors")
    start, size = file.tell(), file.seek(0, io.SEEK_END)
    file.seek(start)
    numbers = {}
    for key in keys:
        storage, count = storages[key], int.from_bytes(file.read(8), "little")
        length = count * storage.dtype.itemsize
        if count != storage.count or length > size - file.tell():
            raise ValueError(f"storage {key[:80]} has {count:,} numbers, or fewer, instead of {storage.count:,}")
        if key in wanted and count:
            numbers[key] = _numbers(file.read(length), storage)
        else:
            file.seek(length, io.SEEK_CUR)
    return numbers


def _numbers(content: bytes, storage: Storage) -> torch.Tensor:
    if len(content) != storage.count * storage.dtype.itemsize:
        raise ValueError(f"storage {storage.key[:80]} has {len(content)} bytes instead of {storage.count * storage.dtype.itemsize}")
    return torch.frombuffer(bytearray(content), dtype=storage.dtype)


def _state_of(tree: Any, path: Path) -> dict[Any, Any]:
    """Returns the state (names and tensors) inside the unpickled object."""
    for _ in range(3):
        inner = [
            tree[key]
            for key in ("state_dict", "model")
            if isinstance(tree, dict) and isinstance(tree.get(key), dict | ScriptModule)
        ]
        tree = inner[0] if inner else tree
    if isinstance(tree, ScriptModule):
        return _attributes(tree)
    if not isinstance(tree, dict):
        raise ModelError(f"{path} holds a {type(tree).__name__}, not a model state: a dict of names and tensors is needed")
    return tree


def _attributes(module: ScriptModule) -> dict[Any, Any]:
    """Returns the tensors of a tree of modules by their dotted names. Each module is visited once, so that a pickle with cycles
    cannot cause an endless loop.
    """
    found: dict[Any, Any] = {}
    waiting, seen, looked_at = [("", 0, module)], {id(module)}, 0
    while waiting:
        prefix, depth, current = waiting.pop()
        looked_at += len(current.attributes)
        if looked_at > _MODULES or depth > _DEPTH:
            raise ValueError("more modules, or deeper ones, than a model has")
        for name, value in current.attributes.items():
            if isinstance(value, Stored):
                found[f"{prefix}{name}"[:1000]] = value
            elif isinstance(value, ScriptModule) and id(value) not in seen:
                seen.add(id(value))
                waiting.append((f"{prefix}{name}."[:1000], depth + 1, value))
    return found
