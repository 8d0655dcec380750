"""Hostile model files, which could take unlimited time or memory, are refused in little time and memory.

Every file is read in its own process, which the kernel ends after 60 seconds of CPU time or above 8 GiB of address space.
"""

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tbps.errors import ModelError
from tbps.model.bundle import load
from tbps.model.pickles import read_tensors

TUPLE60 = b")" + b"2\x86" * 60  # each tuple holds the previous one twice: 2^60 leaves
MEMOISED60 = b")q\x000" + b"".join(b"h%ch%c\x86q%c0" % (n, n, n + 1) for n in range(60)) + b"h\x3c"
DEEP = b")" + b"\x85" * 300_000
STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
HUGE = STORAGE.replace(b"K\x04t", b"\x8a\x08" + struct.pack("<q", 2**60) + b"t")
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def text(name: str) -> bytes:
    return b"X" + struct.pack("<I", len(name)) + name.encode()


def number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(shape: bytes, strides: bytes, offset: bytes = b"K\x00", storage: bytes = STORAGE) -> bytes:
    return REBUILD + b"(" + storage + offset + shape + strides + b"\x89Ntq\xfeR"


def state(value: bytes, name: bytes = text("x")) -> bytes:
    return b"\x80\x02}" + name + value + b"s."


def write_zip(path: Path, pickled: bytes, *more: tuple[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/data/0", bytes(16))
        for name, content in more:
            archive.writestr(f"a/{name}", content)


def same_attributes(modules: int, entries: int) -> bytes:
    """A pickle of modules with one shared dict of attributes, all stored in the dict of the first module."""
    shared = b"}q\x00(" + b"".join(text(f"n{n}") + b"N" for n in range(entries)) + b"u"
    made = b"".join(text(f"m{n}") + b"c__torch__\nM\n)\x81h\x00b" for n in range(modules))
    return b"\x80\x02c__torch__\nM\n)\x81}(" + text("a") + shared + made + b"ub."


def chain(depth: int) -> bytes:
    """A pickle of modules nested to a depth."""
    one = b"c__torch__\nM\n)\x81}" + text("child" * 20)
    return b"\x80\x02" + one * depth + b"N" + b"sb" * depth + b"."


PICKLES = {
    "a key of shared tuples": (b"\x80\x02}" + TUPLE60 + b"K\x01s.", "a tuple as a name"),
    "a key of memoised tuples": (b"\x80\x02}" + MEMOISED60 + b"K\x01s.", "a tuple as a name"),
    "keys of a dict with a mark": (b"\x80\x02(" + TUPLE60 + b"K\x01d.", "a tuple as a name"),
    "a key set with others": (b"\x80\x02}(" + TUPLE60 + b"K\x01u.", "a tuple as a name"),
    "a key of an ordered dict": (b"\x80\x02ccollections\nOrderedDict\n(](" + TUPLE60 + b"K\x01\x86etR.", "a tuple as a name"),
    "a key in attributes": (b"\x80\x02c__torch__\nM\n)\x81}" + TUPLE60 + b"K\x01sb.", "a tuple as a name"),
    "a key too deep for the stack": (b"\x80\x02}" + DEEP + b"K\x01s.", "a tuple as a name"),
    "a value of shared tuples": (state(TUPLE60), "'x' is a tuple"),
    "a storage of shared tuples": (state(TUPLE60 + b"Q"), "no storage"),
    "an offset of shared tuples": (state(tensor(b"K\x04\x85", b"K\x01\x85", TUPLE60)), "without storage"),
    "a length of shared tuples": (state(tensor(TUPLE60 + b"\x85", b"K\x01\x85")), "without storage"),
    "a frozen set": (b"\x80\x04}(" + TUPLE60 + b"\x91K\x01s.", "damaged"),
    "a set": (b"\x80\x04\x8f(" + TUPLE60 + b"\x90.", "damaged"),
    "a list in itself": (b"\x80\x02}q\x00" + text("model") + b"]q\x01h\x01as.", "'model' is a list"),
    "a dict in itself": (b"\x80\x02}q\x00" + text("model") + b"h\x00s.", "'model' is a dict"),
    "a byte array of 2^60": (b"\x80\x05\x96" + struct.pack("<Q", 2**60) + b".", "damaged"),
    "a text of 2^60": (b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b".", "more than"),
    "bytes of 2^60": (b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b".", "more than"),
    "a frame of 2^60": (b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b".", "more than"),
    "a number of 2 GB": (b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b".", "a whole number of"),
    "a number of a megabyte as a name": (
        b"\x80\x02}\x8b" + struct.pack("<i", 2**20) + b"\x01" * 2**20 + b"Ns.",
        "a whole number of",
    ),
    "a number as a name": (b"\x80\x02}" + number(2**2000) + b"K\x01s.", "a int where the name"),
    "a memo of 2^31": (b"\x80\x02}r\xff\xff\xff\x7f.", "memo"),
    "a memo of 2^31 in text": (b"\x80\x02}p2147483647\n.", "memo"),
    "a shape of 2^60": (state(tensor(number(2**60) + b"\x85", b"K\x00\x85")), "in a storage of 4"),
    "a shape whose product is 2^120": (state(tensor(number(2**60) * 2 + b"\x86", b"K\x00K\x00\x86")), "in a storage of 4"),
    "a shape of 100,000 lengths": (state(tensor(numbers((1,) * 100_000), numbers((0,) * 100_000))), "without a shape"),
    "a length of 2^2000": (state(tensor(number(2**2000) + b"\x85", b"K\x00\x85")), "negative size"),
    "strides of 2^60": (state(tensor(b"K\x02K\x02\x86", number(2**60) + b"K\x01\x86")), "damaged"),
    "an offset of 2^60": (state(tensor(b"K\x01\x85", b"K\x01\x85", number(2**60))), "damaged"),
    "strides that overflow": (state(tensor(b"K\x02K\x02\x86", number(2**63 - 1) + b"K\x01\x86")), "damaged"),
    "an expanded view": (state(tensor(number(2**40) + b"\x85", b"K\x00\x85")), "in a storage of 4"),
    "one storage under 100,000 names": (
        b"\x80\x02}(" + b"".join(text(f"w{n}") + tensor(b"K\x04\x85", b"K\x01\x85") for n in range(100_000)) + b"u.",
        "so often",
    ),
    "dicts copied without end": (
        b"\x80\x02]("
        + text("a")
        + b"N\x86q\x00"
        + b"h\x00" * 100_000
        + b"eq\x010"
        + b"("
        + b"ccollections\nOrderedDict\nh\x01\x85R" * 1_000
        + b"t.",
        "entries are copied",
    ),
    "shapes copied without end": (
        b"\x80\x02](" + b"N" * 100_000 + b"eq\x000" + b"(" + b"ctorch\nSize\nh\x00\x85R" * 1_000 + b"t.",
        "a shape that no tensor has",
    ),
    "modules with the same attributes": (same_attributes(2_000, 2_000), "than a model has"),
    "modules 100,000 deep": (chain(100_000), "than a model has"),
    "17 MiB of nothing": (b"\x80\x02" + b"N0" * (17 * 2**19) + b"N.", "more than"),
    "a call of a class's method": (b"\x80\x02})R.", "not a function"),
    "attributes for a type": (b"\x80\x02ctorch\nSize\n}" + text("__setitem__") + b"NsN\x86b.", "attributes for"),
}


def old(*pickles: bytes) -> Callable[[Path], None]:
    """Writes a file in the format from before PyTorch 1.6: the usual first three pickles, then the given ones."""
    usual = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]

    def write(path: Path) -> None:
        path.write_bytes(b"".join([*(pickle.dumps(each, 2) for each in usual), *pickles]) + struct.pack("<q", 4) + bytes(16))

    return write


def many_entries(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
        for entry in range(150_000):
            archive.writestr(zipfile.ZipInfo(f"a/data/{entry:060}"), b"")


def overlapping_entries(path: Path) -> None:
    """1,000 storages whose entries all point to the same bytes."""
    storages = [
        STORAGE.replace(b"X\x01\x00\x00\x000", text(f"{n:04}")).replace(b"K\x04t", number(250_000) + b"t") for n in range(1_000)
    ]
    content = b"".join(text(f"w{n}") + tensor(number(250_000) + b"\x85", b"K\x01\x85", b"K\x00", s) for n, s in enumerate(storages))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}(" + content + b"u.")
        archive.writestr("a/data/0000", bytes(1_000_000))
        first = archive.getinfo("a/data/0000")
        for number_of in range(1, 1_000):
            entry = zipfile.ZipInfo(f"a/data/{number_of:04}")
            entry.file_size, entry.compress_size, entry.CRC, entry.header_offset = (
                1_000_000,
                1_000_000,
                first.CRC,
                first.header_offset,
            )
            archive.filelist.append(entry)
            archive.NameToInfo[entry.filename] = entry


def compressed(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(100 * 2**20))


def safetensors(header: bytes, length: int | None = None) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + bytes(64)) and None


def entry(start: int, end: int, shape: list[int]) -> dict[str, object]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}


HOSTILE = TUPLE60 + b"K\x01s."
FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    **{f"zip: {name}": (lambda path, p=content: write_zip(path, p), message) for name, (content, message) in PICKLES.items()},  # type: ignore[misc]
    "old: the magic number": (lambda path: path.write_bytes(b"\x80\x02}" + HOSTILE) and None, "a tuple as a name"),
    "old: facts of the machine": (
        lambda path: (
            path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + b"\x80\x02}" + HOSTILE) and None
        ),
        "a tuple as a name",
    ),
    "old: the tree": (old(b"\x80\x02}" + HOSTILE), "a tuple as a name"),
    "old: a storage of 2^60": (
        old(state(tensor(number(2**60) + b"\x85", b"K\x01\x85", b"K\x00", HUGE)), b"\x80\x02]" + text("0") + b"a."),
        "storage 0 has 4 numbers",
    ),
    "old: storages of nobody": (
        old(state(tensor(b"K\x04\x85", b"K\x01\x85")), b"\x80\x02]" + text("7") + b"a."),
        "list of storages",
    ),
    "zip: 150,000 entries": (many_entries, "list of entries"),
    "zip: entries upon each other": (overlapping_entries, "larger than the file"),
    "zip: compressed": (compressed, "is compressed"),
    "safetensors: a header of 90 MB": (safetensors(b"{" + b" " * 90_000_000), "header would have"),
    "safetensors: a header of 2^60": (safetensors(b"{", 2**60), "header would have"),
    "safetensors: tensors upon each other": (
        safetensors(json.dumps({"a": entry(0, 64, [16]), "b": entry(0, 64, [16])}).encode()),
        "damaged",
    ),
    "safetensors: a shape of 2^62": (safetensors(json.dumps({"a": entry(0, 64, [2**31, 2**31])}).encode()), "damaged"),
    "safetensors: nested 100,000 deep": (safetensors(b'{"a":' + b"[" * 100_000), "damaged"),
}


READER = """
import os, resource, sys
from pathlib import Path
from tbps.errors import ModelError
from tbps.model.pickles import read_tensors

for line in sys.stdin:
    path, outcome = (Path(each) for each in line.rstrip("\\n").split("\\t"))
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
        resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))
        try:
            read_tensors(path)
        except ModelError as error:
            outcome.write_text(str(error))
        except BaseException as error:
            outcome.write_text(f"raised {error!r:.500}")
        os._exit(0)
    print(os.waitpid(child, 0)[1], flush=True)
"""


@pytest.fixture(scope="module")
def reader() -> Iterator[subprocess.Popen[str]]:
    """A process that reads each file in a fork of itself. It has no threads, so no fork inherits a held lock."""
    with subprocess.Popen([sys.executable, "-c", READER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.parametrize("name", FILES)
def test_hostile_files_are_refused_within_bounds_of_time_and_memory(
    name: str, reader: subprocess.Popen[str], tmp_path: Path
) -> None:
    write, message = FILES[name]
    path, outcome = tmp_path / "weights.pt", tmp_path / "outcome"
    write(path)
    assert reader.stdin is not None and reader.stdout is not None
    reader.stdin.write(f"{path}\t{outcome}\n")
    reader.stdin.flush()
    status = int(reader.stdout.readline())
    assert status == 0, f"ended by signal {os.WTERMSIG(status)}"
    told = outcome.read_text()
    assert message in told and not told.startswith("raised")
    assert len(told) < 1_000 and len(told.splitlines()) == 1


def test_the_file_of_500_bytes_is_refused_by_the_command(tmp_path: Path) -> None:
    write_zip(tmp_path / "weights.pt", PICKLES["a key of memoised tuples"][0])
    limited = "import resource; resource.setrlimit(resource.RLIMIT_CPU, (60, 60)); from tbps.cli import main; main()"
    command = [sys.executable, "-c", limited, "convert", str(tmp_path / "weights.pt"), str(tmp_path / "out")]
    assert subprocess.run(command, check=False).returncode == 2
    assert not (tmp_path / "out").exists()


def test_files_from_before_pytorch_1_6_keep_views_and_leave_an_optimizer_unread(tmp_path: Path) -> None:
    whole = torch.arange(24.0)
    tree = {
        "state_dict": {"a": whole[4:12].view(2, 4), "b": whole.view(4, 6).T, "c": torch.tensor(3), "d": torch.empty(0, 5)},
        "optimizer": {"state": {0: {"exp_avg": torch.ones(1000, dtype=torch.float64)}}},
        "epoch": 3,
    }
    torch.save(tree, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    found = read_tensors(tmp_path / "old.pt").tensors
    assert found.keys() == tree["state_dict"].keys()  # type: ignore[attr-defined]
    for name, tensor_of in found.items():
        torch.testing.assert_close(tensor_of, tree["state_dict"][name], rtol=0, atol=0)  # type: ignore[index]


@pytest.mark.parametrize("change", [{"num_hidden_layers": 10**7}, {"vocab_size": 10**12}, {"max_position_embeddings": 10**10}])
def test_a_configuration_larger_than_its_weights_is_refused(
    change: dict[str, int], tiny_model_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_model_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"describes a model of at least [\d,]+ numbers"):
        load(folder)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"])
def test_deeply_nested_json_is_refused(name: str, tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model_folder, tmp_path / "model")
    (folder / name).write_text("[" * 200_000)
    with pytest.raises(ModelError, match=str(tmp_path)):
        load(folder)
