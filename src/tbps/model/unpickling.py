"""Unpickler that creates inert values only, with time and memory bounded by the size of the pickle.

A pickle of 500 bytes can describe a tuple that contains the same number 2^60 times. Storing it is harmless because its parts are
shared, but hashing, comparing or printing it would never end. This module never hashes, compares or prints a container. Limits:

    length            16 MiB; a model state of 10,000 tensors has about 1.5
    keys of dicts     text, numbers, None (hashing a nested tuple may take forever or overflow the stack)
    whole numbers     255 bytes
    copies            dicts made from lists, and shapes, have a million entries in all
    opcodes           those that Python and PyTorch write; no sets, byte arrays, extension codes or classes of Python 2

The class extends the Python implementation of the unpickler, because the one in C cannot be restricted like this.
"""

import pickle
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NoReturn, final

import torch

from tbps.errors import ModelError

_LONGEST = 16 * 2**20
_LONGEST_NUMBER = 255
_COPIES = 1_000_000
_DIMENSIONS = 64

DTYPES = {
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
_UNUSED = (
    *(pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.INST, pickle.OBJ, pickle.PERSID),
    *(pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET, pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
)


@final
@dataclass(frozen=True, slots=True)
class Storage:
    """Storage of a tensor in the file. `view`: (offset, count) within the storage, used by the format before PyTorch 1.6."""

    key: str
    dtype: torch.dtype
    count: int
    view: tuple[int, int] | None = None


@final
@dataclass(frozen=True, slots=True)
class Stored:
    """Description of a tensor that is not read yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@final
class ScriptModule:
    """Attributes of a TorchScript module."""

    def __init__(self) -> None:
        self.attributes: Mapping[Any, Any] = {}


@final
class _Dict(dict[Any, Any]):
    """Dict that accepts simple keys only; also replaces OrderedDict, Counter and EasyDict."""

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(key, str | int | float | bytes | None):
            raise pickle.UnpicklingError(f"a {type(key).__name__} as a name; model states have texts and numbers as names")
        super().__setitem__(key, value)


@final
class _Ignored:
    """A value that is not part of a model state, such as a numpy scalar in an optimizer."""

    def __new__(cls, *_: object) -> "_Ignored":
        return super().__new__(cls)


@final
class _Limited:
    """A readable file that refuses to read more than _LONGEST bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = _LONGEST

    def read(self, size: int) -> bytes:
        content = self._file.read(self._taken(size))
        return content

    def readinto(self, buffer: Any) -> int:
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def readline(self) -> bytes:
        line = self._file.readline(self._left + 1)
        self._taken(len(line))
        return line

    def _taken(self, size: int) -> int:
        if not 0 <= size <= self._left:
            raise pickle.UnpicklingError(f"a pickle of more than {_LONGEST:,} bytes, which no model state needs")
        self._left -= size
        return size


_Unpickler: Any = pickle._Unpickler  # typeshed declares it as the one in C, which has no table of opcodes


class InertUnpickler(_Unpickler):  # type: ignore[misc]
    """Reads one pickle from the current position of `file`; `load` returns its value.

    `torchscript`: whether the pickle contains a TorchScript module; `storages`: all storages in the pickle, by key. Raises
    ModelError for a name that is not allowed, UnpicklingError for an exceeded limit, and the exceptions of `pickle` for a damaged
    pickle.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        code: load for code, load in _Unpickler.dispatch.items() if bytes([code]) not in _UNUSED
    }

    def __init__(self, file: BinaryIO, path: Path) -> None:
        super().__init__(_Limited(file))
        self._path = path
        self._copies = 0
        self._called: dict[str, Callable[..., Any]] = {
            "collections.OrderedDict": self._dict,
            "collections.Counter": self._dict,
            "easydict.EasyDict": self._dict,
            "torch._utils._rebuild_tensor": _tensor,
            "torch._utils._rebuild_tensor_v2": _tensor,
            "torch.Size": self._size,
            **dict.fromkeys(_WRAPPERS, _first),
            **dict.fromkeys(_IGNORED, _Ignored),
        }
        self.torchscript = False
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Returns the inert replacement for a class or function."""
        if module == "__torch__" or module.startswith("__torch__."):
            self.torchscript = True
            return ScriptModule
        whole = f"{module}.{name}"
        if whole in self._called:
            return self._called[whole]
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        refuse(whole, self._path)

    def persistent_load(self, pid: Any) -> Storage:
        """Returns the storage for a tuple ("storage", type, key, device, count).

        In the format before PyTorch 1.6, the tuple has a sixth element: None, or (key, offset, count) of a view.
        """
        match pid:
            case ("storage", torch.dtype() as dtype, str(key), _, int(count), *rest) if 0 <= count < 2**63:
                whole = self.storages.setdefault(key, Storage(key, dtype, count))
                if (whole.dtype, whole.count) != (dtype, count):
                    raise pickle.UnpicklingError(f"storage {key[:80]} has two types or lengths")
                match rest:
                    case [] | [None]:
                        return whole
                    case [(str(), int(offset), int(size))] if 0 <= offset <= offset + size <= count and size >= 0:
                        return Storage(key, dtype, count, (offset, size))
        raise pickle.UnpicklingError("no storage where a tensor's numbers should be")

    def _dict(self, entries: Iterable[Any] = ()) -> _Dict:
        if not isinstance(entries, dict | list | tuple):
            raise pickle.UnpicklingError("a dict of something else than entries")
        self._copies += len(entries)
        if self._copies > _COPIES:
            raise pickle.UnpicklingError(f"more than {_COPIES:,} entries are copied")
        made = _Dict()
        for key, value in entries.items() if isinstance(entries, dict) else entries:
            made[key] = value
        return made

    def _size(self, lengths: Any = ()) -> tuple[int, ...]:
        if not isinstance(lengths, tuple | list) or len(lengths) > _DIMENSIONS:
            raise pickle.UnpicklingError("a shape that no tensor has")
        return tuple(lengths)

    def _is_known(self, called: Any) -> bool:
        return called is ScriptModule or any(called is known for known in self._called.values())

    def _load_empty_dict(self) -> None:
        self.append(_Dict())

    def _load_dict(self) -> None:
        items = self.pop_mark()
        made = _Dict()
        for place in range(0, len(items), 2):
            made[items[place]] = items[place + 1]
        self.append(made)

    def _load_reduce(self) -> None:
        arguments = self.stack.pop()
        called = self.stack[-1]
        if not self._is_known(called) or not isinstance(arguments, tuple):
            raise pickle.UnpicklingError("a call of something that is not a function")
        self.stack[-1] = called(*arguments)

    def _load_newobj_ex(self) -> None:
        self.stack.pop()  # keyword arguments, which no allowed function takes
        self._load_reduce()

    def _load_build(self) -> None:
        state, built = self.stack.pop(), self.stack[-1]
        if isinstance(built, ScriptModule):
            if not isinstance(state, _Dict):
                raise pickle.UnpicklingError("a module whose attributes are not a dict")
            built.attributes = state
        elif not isinstance(built, _Dict | _Ignored):  # an EasyDict repeats its entries, a state dict has version numbers
            raise pickle.UnpicklingError(f"attributes for a {type(built).__name__}")

    def _load_long4(self) -> None:
        size = int.from_bytes(self.read(4), "little", signed=True)
        if not 0 <= size <= _LONGEST_NUMBER:
            raise pickle.UnpicklingError(f"a whole number of {size:,} bytes")
        self.append(int.from_bytes(self.read(size), "little", signed=True))

    def _load_long_binput(self) -> None:
        self._put(int.from_bytes(self.read(4), "little"))

    def _load_put(self) -> None:
        self._put(int(self.readline()[:-1]))

    def _put(self, number: int) -> None:
        if not 0 <= number <= _LONGEST:
            raise pickle.UnpicklingError("its memo is larger than the pickle")
        self.memo[number] = self.stack[-1]

    dispatch |= {
        pickle.EMPTY_DICT[0]: _load_empty_dict,
        pickle.DICT[0]: _load_dict,
        pickle.REDUCE[0]: _load_reduce,
        pickle.NEWOBJ[0]: _load_reduce,
        pickle.NEWOBJ_EX[0]: _load_newobj_ex,
        pickle.BUILD[0]: _load_build,
        pickle.LONG4[0]: _load_long4,
        pickle.LONG_BINPUT[0]: _load_long_binput,
        pickle.PUT[0]: _load_put,
    }


_WRAPPERS = (
    "torch._utils._rebuild_parameter",
    "torch.jit._pickle.restore_type_tag",
    *(f"torch.jit._pickle.build_{kind}" for kind in ("intlist", "tensorlist", "doublelist", "boollist")),
)
_IGNORED = (
    *("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "_codecs.encode"),
    *("torch.device", "argparse.Namespace"),
)


def refuse(name: str, path: Path, cause: Exception | None = None) -> NoReturn:
    """Raises ModelError for a pickle that contains the name of a class or function that is not allowed."""
    raise ModelError(
        f"{path} is refused: its pickle names {name[:200]}, which is neither a tensor nor plain data, and was not executed; "
        "where it was written, save the model's state_dict() alone"
    ) from cause


def _first(value: Any, *_: object) -> Any:
    return value


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: object) -> Stored:
    sizes = [shape, strides]
    if not all(isinstance(size, tuple | list) and len(size) <= _DIMENSIONS for size in sizes):
        raise pickle.UnpicklingError("a tensor without a shape")
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, Storage) or not all(isinstance(number, int) and 0 <= number < 2**63 for number in numbers):
        raise pickle.UnpicklingError("a tensor without storage, or of negative size")
    return Stored(storage, offset, tuple(shape), tuple(strides))
