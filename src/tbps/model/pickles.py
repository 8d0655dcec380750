"""The tensors of a PyTorch or safetensors file, with nothing in it executed.

`torch.save` and TorchScript both write a zip file:

    NAME/data.pkl   a pickle of dicts, lists and numbers, where a tensor is (storage, offset, shape, strides)
    NAME/data/7     the numbers of storage 7
    NAME/code/...   TorchScript only: the program of the model; never looked at

Its pickle goes through an unpickler that knows a closed list of names and turns each into something inert: a TorchScript module
becomes its attributes, an `easydict.EasyDict` a dict, a tensor a note of where its numbers lie. Any other name is refused.
`torch.jit.load` is not used: it compiles the program of the archive and calls the `__setstate__` methods that it defines, which
is to run a stranger's code. Files from before PyTorch 1.6 are no zip files; `torch.load(weights_only=True)` reads those.
"""

import io
import pickle
import pickletools
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NoReturn, final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tbps.errors import ModelError

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

# What unpickling a damaged or hostile pickle raises, by the documentation of `pickle` and by trying.
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
    """The tensors of a model state by their names in the file, and whether the file is a TorchScript archive."""

    tensors: dict[str, torch.Tensor]
    torchscript: bool


def read_tensors(path: Path) -> TensorFile:
    """The model state of a `.pt`, `.pth`, `.bin` or `.safetensors` file, told apart by content.

    The state may lie at the top or under "state_dict" or "model", as training scripts write it; optimizers beside it are not read.
    Raises ModelError: no such file, damaged or truncated, a pickle that names anything not on the list (by its qualified name), a
    state that is empty or holds other things than tensors.
    """
    if not path.is_file():
        raise ModelError(f"{path} {'is no file' if path.exists() else 'does not exist'}; give a checkpoint file or a model folder")
    with path.open("rb") as file:
        head = file.read(9)
    torchscript = False
    if head.startswith(b"PK\x03\x04"):
        state, torchscript = _read_zip(path)
    elif head[8:] == b"{" or path.suffix == ".safetensors":
        state = _read_safetensors(path)
    else:
        state = _read_old(path)
    foreign = [f"{name!r} is a {type(value).__name__}" for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if foreign:
        raise ModelError(f"{path} holds other things than tensors where the model's state should be: {'; '.join(foreign[:8])}")
    if not state:
        raise ModelError(f"{path} holds no tensors: its model state is empty")
    return TensorFile({str(name): tensor for name, tensor in state.items()}, torchscript)


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is damaged or no safetensors file: {error}") from error


def _read_old(path: Path) -> dict[Any, Any]:
    try:
        tree = torch.load(path, map_location="cpu", weights_only=True)
    except _BROKEN as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named:
            _refuse(named[1], path, error)
        raise ModelError(f"{path} is no checkpoint, or is damaged or truncated; fetch or copy it again") from error
    return _state_of(tree, path)


def _read_zip(path: Path) -> tuple[dict[Any, Any], bool]:
    try:
        with zipfile.ZipFile(path) as archive:
            root = _root(archive)
            unpickler = _Unpickler(archive.read(_plain(archive, f"{root}data.pkl")), path)
            tree = unpickler.load()
            state = _state_of(tree, path)
            storages: dict[str, torch.Tensor] = {}
            tensors = {
                name: _materialise(value, archive, root, storages) if isinstance(value, _Stored) else value
                for name, value in state.items()
            }
            return tensors, unpickler.torchscript
    except _BROKEN as error:
        reason = str(error) or type(error).__name__
        raise ModelError(f"{path} is damaged or truncated ({reason}); fetch or copy it again") from error


def _root(archive: zipfile.ZipFile) -> str:
    found = [name.removesuffix("data.pkl") for name in archive.namelist() if re.fullmatch(r"([^/]+/)?data\.pkl", name)]
    if len(found) != 1:
        raise ValueError(f"a zip file with {len(found)} pickles data.pkl; PyTorch writes one")
    if f"{found[0]}byteorder" in archive.namelist() and archive.read(_plain(archive, f"{found[0]}byteorder")) != b"little":
        raise ValueError("its numbers are big-endian; save it again on the machine that wrote it, as safetensors")
    return found[0]


def _plain(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """The entry, which PyTorch never compresses: an uncompressed one cannot be larger than the file."""
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed, which PyTorch does not do")
    return entry


@final
@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: torch.dtype
    count: int


@final
@dataclass(frozen=True)
class _Stored:
    """A tensor whose numbers still lie in the file."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _materialise(stored: _Stored, archive: zipfile.ZipFile, root: str, storages: dict[str, torch.Tensor]) -> torch.Tensor:
    key, dtype, count = stored.storage.key, stored.storage.dtype, stored.storage.count
    if prod(stored.shape) > count:
        raise ValueError(f"a tensor of shape {stored.shape} in a storage of {count} numbers")
    if not count:
        return torch.empty(stored.shape, dtype=dtype)
    if key not in storages:
        content = bytearray(archive.read(_plain(archive, f"{root}data/{key}")))
        if len(content) != count * dtype.itemsize:
            raise ValueError(f"storage {key} has {len(content)} bytes instead of {count * dtype.itemsize}")
        storages[key] = torch.frombuffer(content, dtype=dtype)
    return storages[key].as_strided(stored.shape, stored.strides, stored.offset)


class _Module:
    """What became of a TorchScript module: its attributes."""

    attributes: Mapping[str, Any]


@final
class _Unpickler(pickle.Unpickler):
    def __init__(self, content: bytes, path: Path) -> None:
        super().__init__(io.BytesIO(content))
        # The memo is a table as long as the largest number in it: a few bytes could ask for gigabytes.
        puts = (number for code, number, _ in pickletools.genops(content) if code.name in ("PUT", "LONG_BINPUT"))
        if any(number is not None and number > len(content) for number in puts):
            raise pickle.UnpicklingError("its memo is larger than the pickle")
        self._path = path
        self._known = _known_names()
        self.torchscript = False

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            self.torchscript = True
            return self._known["__torch__"]
        if f"{module}.{name}" not in self._known:
            _refuse(f"{module}.{name}", self._path)
        return self._known[f"{module}.{name}"]

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", torch.dtype() as dtype, str(key), _, int(count)) if count >= 0:
                return _Storage(key, dtype, count)
        raise pickle.UnpicklingError(f"no storage: {pid!r:.80}")


def _refuse(name: str, path: Path, cause: Exception | None = None) -> NoReturn:
    raise ModelError(
        f"{path} is refused: its pickle names {name}, which is neither a tensor nor plain data, and was not executed; "
        "where it was written, save the model's state_dict() alone"
    ) from cause


def _known_names() -> dict[str, Any]:
    """Every name that a pickle may use. Made anew for each file, since a hostile pickle can set attributes of what it names."""

    class Dict(dict[Any, Any]):
        def __setstate__(self, state: object) -> None:
            """An EasyDict repeats its entries as attributes, a state dict has version numbers: not needed."""

    class Ignored:
        """A value that no model state consists of, such as a number of numpy in an optimizer."""

        def __new__(cls, *_: object) -> "Ignored":
            return super().__new__(cls)

        def __setstate__(self, state: object) -> None:
            pass

    class Module(_Module):
        def __setstate__(self, state: Mapping[str, Any]) -> None:
            self.attributes = state

    def tensor(storage: Any, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object) -> _Stored:
        numbers = (offset, *shape, *strides)
        if not isinstance(storage, _Storage) or not all(isinstance(number, int) and number >= 0 for number in numbers):
            raise pickle.UnpicklingError("a tensor without storage, or of negative size")
        return _Stored(storage, offset, tuple(shape), tuple(strides))

    def first(value: Any, *_: object) -> Any:
        return value

    typed_lists = ("intlist", "tensorlist", "doublelist", "boollist")
    numbers = ("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "_codecs.encode")
    return {
        "__torch__": Module,
        "collections.OrderedDict": Dict,
        "collections.Counter": Dict,
        "easydict.EasyDict": Dict,
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch._utils._rebuild_parameter": first,
        "torch.jit._pickle.restore_type_tag": first,
        "torch.Size": tuple,
        **{f"torch.jit._pickle.build_{kind}": first for kind in typed_lists},
        **{f"torch.{name}": dtype for name, dtype in _DTYPES.items()},
        **dict.fromkeys((*numbers, "torch.device", "argparse.Namespace"), Ignored),
    }


def _state_of(tree: Any, path: Path) -> dict[Any, Any]:
    """The names and tensors in what the pickle held."""
    for _ in range(3):
        inner = [
            tree[key] for key in ("state_dict", "model") if isinstance(tree, dict) and isinstance(tree.get(key), dict | _Module)
        ]
        tree = inner[0] if inner else tree
    if isinstance(tree, _Module):
        return _attributes(tree)
    if not isinstance(tree, dict):
        raise ModelError(f"{path} holds a {type(tree).__name__}, not a model state: a dict of names and tensors is needed")
    return tree


def _attributes(module: _Module) -> dict[str, _Stored]:
    """The tensors of a tree of modules by their dotted names; each module once, so that no pickle can make this endless."""
    found: dict[str, _Stored] = {}
    waiting, seen = [("", module)], {id(module)}
    while waiting:
        prefix, current = waiting.pop()
        for name, value in current.attributes.items():
            if isinstance(value, _Stored):
                found[f"{prefix}{name}"] = value
            elif isinstance(value, _Module) and id(value) not in seen:
                seen.add(id(value))
                waiting.append((f"{prefix}{name}.", value))
    return found
