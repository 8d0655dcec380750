"""Back translation of training captions from English to French and back, for the paraphrases (`captions_bt`) of TBPS-CLIP.

Every distinct caption is translated once and stored in a journal beside the output, from which an interrupted run resumes:

    {"backward": "Helsinki-NLP/opus-mt-fr-en", "beams": 4, "forward": "Helsinki-NLP/opus-mt-en-fr"}
    {"caption": "A man in a red coat.", "paraphrase": "A man with a red coat."}
    {"caption": "...", "paraphrase": null}                                          the translation contains no word
"""

import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch

from tbps.data.readers import folder, tbps_json
from tbps.data.readers.catalog import read_dataset
from tbps.data.records import PersonImage
from tbps.errors import CaptionError, DataError, ModelError
from tbps.hub import model_folder
from tbps.optional import needed
from tbps.preprocess.caption import clean_caption
from tbps.preprocess.metadata import METADATA_FILE
from tbps.storage import make_folder, writing_to

Translate = Callable[[Sequence[str]], list[str]]
"""Texts -> one translation each; a translation may be empty."""

OnProgress = Callable[[int, int], None]

_HUB_FILES = ["*.json", "*.spm", "model.safetensors", "pytorch_model.bin"]
# Limits the tokens of a translation: one more than about three times as long as its source comes from a decoder stuck in a loop.
_LENGTH_FACTOR, _LENGTH_SPARE = 3, 10


@dataclass(frozen=True, slots=True)
class TrainFile:
    """The train records of a data set, and the files to write with their paraphrases.

    `source`: annotation file of the captions; `captions`: captions of each record, in order; `text`: function from the paraphrases
    of each record to the content of `out`; `others`: content of further files, which together with `out` form a data set of the
    layout `tbps`.
    """

    source: Path
    captions: tuple[tuple[str, ...], ...]
    out: Path
    text: Callable[[Sequence[Sequence[str]]], str]
    others: Mapping[Path, str]

    def contents(self, paraphrases: Mapping[str, str | None]) -> dict[Path, str]:
        """Returns the content of every file. A caption whose paraphrase is None is used in its place."""
        filled = [[paraphrases[caption] or caption for caption in captions] for captions in self.captions]
        return {**self.others, self.out: self.text(filled)}


def read_train_file(layout: str, root: Path, out: Path | None = None) -> TrainFile:
    """Reads the train records of the data set at `root`, in a layout of `read_dataset`.

    `folder` and `tbps` keep their layout: the output is a copy of the annotation file, by default `metadata.back_translated.jsonl`
    or `train_reid.back_translated.json` beside the original. Published layouts have no field for paraphrases and become `tbps`: by
    default `train_reid.json` in `root`, with `val_reid.json` and `test_reid.json` beside it.

    Raises DataError when the data set is invalid, has no train record, or `out` is its annotation file.
    """
    images = read_dataset(layout, root).images
    if layout == folder.NAME:
        file = _folder_file(root, out or root / "metadata.back_translated.jsonl")
    elif layout == tbps_json.NAME:
        file = _tbps_file(root, out or root / "train_reid.back_translated.json")
    else:
        file = _published_file(root, images, out or root / "train_reid.json")
    if not file.captions:
        raise DataError(f"{root} has no train record; only train captions are paraphrased")
    if file.out.resolve() == file.source.resolve():
        raise DataError(f"{file.out} is the annotation file itself, which is never overwritten; give another --out")
    return file


@final
class Journal:
    """Journal of translations: a file of JSON lines. `known`: caption -> paraphrase, None where the translation contains no word.

    `facts`: how captions are translated (models, beams); a journal with other facts is refused (DataError). A last line that is
    incomplete after a crash or on a full disk is removed.
    """

    def __init__(self, file: Path, facts: Mapping[str, str | int]) -> None:
        self.file = file
        self.known: dict[str, str | None] = {}
        content = file.read_bytes() if file.exists() else b""
        whole, _, rest = content.rpartition(b"\n")
        if rest:
            with writing_to(file.parent), file.open("rb+") as stream:
                stream.truncate(len(content) - len(rest))
        lines = whole.splitlines()
        self._facts = facts
        self._begun = len(lines) > 1
        for number, line in enumerate(lines if self._begun else [], start=1):
            self._read(number, line)

    def add(self, translated: Mapping[str, str | None]) -> None:
        """Appends a batch, which is on disk when this returns. The first batch creates the file."""
        records: list[Mapping[str, Any]] = [] if self._begun else [self._facts]
        records += [{"caption": caption, "paraphrase": paraphrase} for caption, paraphrase in translated.items()]
        make_folder(self.file.parent)
        with writing_to(self.file.parent), self.file.open("ab" if self._begun else "wb") as stream:
            stream.write("".join(json.dumps(record, sort_keys=True) + "\n" for record in records).encode())
            stream.flush()
            os.fsync(stream.fileno())
        self._begun = True
        self.known.update(translated)

    def _read(self, number: int, line: bytes) -> None:
        way_out = f"remove {self.file} to translate again, or give another --out"
        try:
            record = json.loads(line)
            if number > 1:
                self.known[record["caption"]] = record["paraphrase"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self.file}: line {number} is damaged ({error!r}); {way_out}") from error
        if number == 1 and record != dict(self._facts):
            raise DataError(f"{self.file} was begun with {json.dumps(record)}, not {json.dumps(dict(self._facts))}; {way_out}")


def back_translate(
    captions: Iterable[str],
    forward: Translate,
    backward: Translate,
    journal: Journal,
    batch_size: int,
    on_progress: OnProgress = lambda done, total: None,
) -> None:
    """Translates the captions that are missing from the journal, forward and back; then `journal.known` contains every caption.

    Batches hold captions of similar length. The longest come first, so that a lack of memory shows in the first batch. Batches do
    not depend on the journal: an interrupted run translates the same batches as an uninterrupted one.
    """
    wordings = sorted(set(captions), key=lambda text: (-len(text), text))
    batches = [wordings[start : start + batch_size] for start in range(0, len(wordings), batch_size)]
    pending = [batch for batch in batches if not journal.known.keys() >= set(batch)]
    done = len(wordings) - sum(map(len, pending))
    on_progress(done, len(wordings))
    for batch in pending:
        there = _translate_worded(batch, forward)
        journal.add(dict(zip(batch, _translate_worded(there, backward), strict=True)))
        done += len(batch)
        on_progress(done, len(wordings))


@final
class MarianTranslator:
    """Translates with one direction of a MarianMT model, on the GPU if available.

    `model`: a folder, or a Hugging Face id. Raises ModelError when it is missing, incomplete or of another kind,
    MissingDependencyError without the package sentencepiece.
    """

    def __init__(self, model: str, beams: int) -> None:
        needed("sentencepiece", "translating", "text")
        self._beams = beams
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        path = model_folder(model, _HUB_FILES, "translation model", "Helsinki-NLP/opus-mt-en-fr")
        self._model, self._tokenizer = _open(path)
        self._model.to(self._device)
        self._longest: int = self._model.config.max_position_embeddings

    def __call__(self, texts: Sequence[str]) -> list[str]:
        """Translates texts by beam search; a text longer than the model's context is cut."""
        readable = [" ".join(text.encode("utf-8", "replace").decode().split()) for text in texts]  # lone surrogates become "?"
        tokens = self._tokenizer(readable, return_tensors="pt", padding=True, truncation=True, max_length=self._longest)
        room = min(self._longest - 1, _LENGTH_FACTOR * tokens["input_ids"].shape[1] + _LENGTH_SPARE)
        with torch.no_grad():
            written = self._model.generate(**tokens.to(self._device), num_beams=self._beams, do_sample=False, max_new_tokens=room)
        spelled = self._tokenizer.batch_decode(written, skip_special_tokens=True, use_source_tokenizer=False)
        return [" ".join(text.split()) for text in spelled]


def _translate_worded(texts: Sequence[str | None], translate: Translate) -> list[str | None]:
    """Translates the texts; None stays None, and a translation without a word becomes None."""
    worded = [text for text in texts if text is not None]
    translated = iter(translate(worded) if worded else [])
    results = [None if text is None else next(translated) for text in texts]
    return [text if text is not None and _has_word(text) else None for text in results]


def _has_word(text: str) -> bool:
    try:
        return bool(clean_caption(text))
    except CaptionError:
        return False


def _folder_file(root: Path, out: Path) -> TrainFile:
    source = root / METADATA_FILE
    with source.open(encoding="utf-8-sig") as stream:
        lines = list(stream)
    records = {number: record for number, line in enumerate(lines) if line.strip() and _is_train(record := json.loads(line))}

    def text(paraphrases: Sequence[Sequence[str]]) -> str:
        filled = dict(zip(records, paraphrases, strict=True))
        written = (
            json.dumps(records[number] | {"captions_bt": filled[number]}) + "\n" if number in records else line
            for number, line in enumerate(lines)
        )
        return "".join(written)

    return TrainFile(source, tuple(map(_captions, records.values())), out, text, {})


def _is_train(record: Mapping[str, Any]) -> bool:
    return record.get("split") == "train"


def _captions(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the captions of a validated record."""
    one = record.get("caption")
    return tuple(record["captions"]) if one is None else (one,)


def _tbps_file(root: Path, out: Path) -> TrainFile:
    source = root / "train_reid.json"
    records: list[dict[str, Any]] = json.loads(source.read_bytes()) if source.is_file() else []

    def text(paraphrases: Sequence[Sequence[str]]) -> str:
        return _json([record | {"captions_bt": filled} for record, filled in zip(records, paraphrases, strict=True)])

    return TrainFile(source, tuple(map(_captions, records)), out, text, {})


def _published_file(root: Path, images: Sequence[PersonImage], out: Path) -> TrainFile:
    base = Path(os.path.realpath(root / "imgs"))
    records: dict[str, list[dict[str, Any]]] = {"train": []}
    for image in images:
        record = {"file_path": image.path.relative_to(base).as_posix(), "id": image.identity, "captions": image.captions}
        records.setdefault(image.split, []).append(record)
    train = records.pop("train")

    def text(paraphrases: Sequence[Sequence[str]]) -> str:
        return _json([record | {"captions_bt": filled} for record, filled in zip(train, paraphrases, strict=True)])

    others = {out.with_name(f"{split}_reid.json"): _json(members) for split, members in records.items()}
    return TrainFile(root, tuple(map(_captions, train)), out, text, others)


def _json(records: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps(records, indent=0) + "\n"


def _open(path: Path) -> tuple[Any, Any]:
    """Opens MarianMTModel and MarianTokenizer of a folder."""
    from pickle import UnpicklingError

    from safetensors import SafetensorError
    from transformers import MarianMTModel, MarianTokenizer

    kind = _model_type(path / "config.json")
    if kind != "marian":
        raise ModelError(f"{path} holds a model of type {kind!r}; translating needs one of type 'marian', such as opus-mt-en-fr")
    missing = [name for name in ("source.spm", "target.spm", "vocab.json") if not (path / name).is_file()]
    if missing:
        raise ModelError(f"{path} has no complete tokenizer: {', '.join(missing)} missing; fetch the folder again")
    try:
        with _quiet():
            model, loading = MarianMTModel.from_pretrained(path, output_loading_info=True)
            tokenizer = MarianTokenizer.from_pretrained(path)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, UnpicklingError) as error:
        raise ModelError(f"the translation model in {path} cannot be read: {error}") from error
    absent = sorted(name for name in loading["missing_keys"] if ".layers." in name)
    if absent:
        raise ModelError(f"the weights in {path} lack {len(absent)} tensors, the first {absent[0]}; fetch the folder again")
    model.generation_config.max_length = None  # every batch has its own limit
    return model.eval(), tokenizer


def _model_type(config: Path) -> str:
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{config.parent} is not a model folder: config.json is missing") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{config} cannot be read: {error}") from error
    return str(values.get("model_type")) if isinstance(values, dict) else type(values).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides transformers' progress bar, and its advice to install sacremoses, which the tokenizer no longer uses."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
            yield
    finally:
        if shown:
            logging.enable_progress_bar()
