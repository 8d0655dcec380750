"""Back translation: journal, batches, annotation files, and MarianMT on tiny random models."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import MarianMTModel, MarianTokenizer

from tbps.data.augment.back_translation import Journal, MarianTranslator, Translate, back_translate, read_train_file
from tbps.data.readers.catalog import read_dataset
from tbps.errors import DataError, ModelError
from tests.support.tiny_marian import ENGLISH, FRENCH, write_marian

FACTS = {"forward": "en-fr", "backward": "fr-en", "beams": 4}
CAPTIONS = [f"caption {'long ' * (number % 5)}{number}" for number in range(23)]


def reverse(batches: list[list[str]] | None = None) -> Translate:
    """A translator that reverses words and records its batches."""

    def translate(texts: Sequence[str]) -> list[str]:
        if batches is not None:
            batches.append(list(texts))
        return [text[::-1] for text in texts]

    return translate


def shout(texts: Sequence[str]) -> list[str]:
    return [text.upper() for text in texts]


def test_every_distinct_caption_is_translated_once(tmp_path: Path) -> None:
    batches: list[list[str]] = []
    seen: list[tuple[int, int]] = []
    journal = Journal(tmp_path / "j", FACTS)
    back_translate(CAPTIONS * 2, reverse(batches), shout, journal, 5, lambda done, total: seen.append((done, total)))
    assert journal.known == {caption: caption[::-1].upper() for caption in CAPTIONS}
    assert sorted(text for batch in batches for text in batch) == sorted(CAPTIONS)
    assert [len(batch) for batch in batches] == [5, 5, 5, 5, 3]
    lengths = [len(text) for batch in batches for text in batch]
    assert lengths == sorted(lengths, reverse=True)
    assert seen == [(0, 23), (5, 23), (10, 23), (15, 23), (20, 23), (23, 23)]
    assert Journal(tmp_path / "j", FACTS).known == journal.known


@pytest.mark.parametrize("after", range(6))
@pytest.mark.parametrize("cut", [0, 1, 30])
def test_an_interrupted_run_resumes_with_the_same_batches(tmp_path: Path, after: int, cut: int) -> None:
    whole: list[list[str]] = []
    back_translate(CAPTIONS, reverse(whole), shout, Journal(tmp_path / "whole", FACTS), 5)

    def failing(texts: Sequence[str]) -> list[str]:
        if len(began) == after:
            raise KeyboardInterrupt
        return reverse(began)(texts)

    began: list[list[str]] = []
    file = tmp_path / "journal"
    if after < 5:
        with pytest.raises(KeyboardInterrupt):
            back_translate(CAPTIONS, failing, shout, Journal(file, FACTS), 5)
    else:
        back_translate(CAPTIONS, failing, shout, Journal(file, FACTS), 5)
    if file.exists() and cut:
        file.write_bytes(file.read_bytes()[:-cut])  # as after a crash in the middle of a write
    rest: list[list[str]] = []
    journal = Journal(file, FACTS)
    back_translate(CAPTIONS, reverse(rest), shout, journal, 5)
    again = bool(cut and after)  # the last batch was damaged
    assert began[: len(began) - again] + rest == whole
    assert journal.known == Journal(file, FACTS).known == Journal(tmp_path / "whole", FACTS).known


def test_a_translation_without_words_is_none_and_never_translated_back(tmp_path: Path) -> None:
    back: list[list[str]] = []
    there = {"mute": "", "dots": "...", "gone": "parti", "fine": "bien"}
    back_again = {"parti": " !! ", "bien": "good"}

    def backward(texts: Sequence[str]) -> list[str]:
        back.append(list(texts))
        return [back_again[text] for text in texts]

    journal = Journal(tmp_path / "j", FACTS)
    back_translate(there, lambda texts: [there[text] for text in texts], backward, journal, 10)
    assert journal.known == {"mute": None, "dots": None, "gone": None, "fine": "good"}
    assert back == [["bien", "parti"]]
    silent = Journal(tmp_path / "silent", FACTS)
    back_translate(["a", "b"], lambda texts: [""] * len(texts), backward, silent, 10)
    assert silent.known == {"a": None, "b": None} and len(back) == 1
    assert Journal(tmp_path / "silent", FACTS).known == silent.known


def test_the_journal_keeps_unusual_captions(tmp_path: Path) -> None:
    odd = ['a "quoted"\nline', "红 coat", "\ud800 alone", "a\u2028b", "  spaces "]
    journal = Journal(tmp_path / "folder" / "j", FACTS)
    journal.add({caption: caption[::-1] for caption in odd})
    assert Journal(tmp_path / "folder" / "j", FACTS).known == {caption: caption[::-1] for caption in odd}


def test_a_journal_of_other_models_and_a_damaged_one_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "j"
    Journal(file, FACTS).add({"a": "b"})
    before = file.read_bytes()
    with pytest.raises(DataError, match=r'"beams": 4.*"beams": 1.*remove .* or give another --out'):
        Journal(file, FACTS | {"beams": 1})
    assert file.read_bytes() == before
    for damaged in (b"[]\n", b"{\n", b'{"caption": "a"}\n'):
        file.write_bytes(before + damaged + before)
        with pytest.raises(DataError, match="line 3 is damaged"):
            Journal(file, FACTS)


def test_a_journal_without_translations_may_be_used_with_other_models(tmp_path: Path) -> None:
    file = tmp_path / "j"
    assert Journal(file, FACTS).known == {} and not file.exists()
    for beginning in (b'{"for', b'{"forward": "other"}\n', b'{"forward": "other"}\n{"cap'):
        file.write_bytes(beginning)
        Journal(file, FACTS).add({"a": "b"})
        assert Journal(file, FACTS).known == {"a": "b"}


# Annotation files


def put_images(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 8)).save(folder / name)


def folder_data(root: Path) -> Path:
    put_images(root, [f"{number}.png" for number in range(6)])
    records = [
        {"file_name": "0.png", "split": "train", "identity": 7, "captions": ["A man.", "A red coat."], "note": {"x": [1]}},
        {"file_name": "1.png", "split": "val", "identity": 8, "caption": "Another man."},
        {"file_name": "2.png", "split": "train", "identity": 9, "caption": "A red coat.", "captions_bt": ["old"]},
        {"file_name": "3.png", "identity": 10, "caption": "No split: test."},
        {"file_name": "4.png", "split": "train", "identity": 11, "caption": "Line\u2028separated, größer."},
        {"file_name": "5.png", "split": "test", "identity": 12, "caption": "größer"},
    ]
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    (root / "metadata.jsonl").write_text("\n\n".join(lines), encoding="utf-8-sig")
    return root


def tbps_data(root: Path) -> Path:
    put_images(root / "imgs", [f"{number}.png" for number in range(3)])
    for split, start in (("train", 0), ("val", 1), ("test", 2)):
        records = [{"file_path": f"{start}.png", "id": start + 5, "captions": [f"In {split}.", "A red coat."], "further": split}]
        (root / f"{split}_reid.json").write_text(json.dumps(records))
    return root


def published_data(root: Path, file: str, path_field: str = "file_path", splits: str = "train val test") -> Path:
    names = [f"a/{number:04d}_c{number % 3 + 1}_0001.png" for number in range(12)]
    put_images(root / "imgs", names)
    records = [
        {"id": number, path_field: name, "captions": [f"Caption {number}.", f"Other {number}."], "split": split}
        for number, name in enumerate(names)
        for split in [splits.split()[number % len(splits.split())]]
    ]
    (root / file).write_text(json.dumps(records))
    return root


def paraphrased(root: Path, layout: str, out: Path | None = None) -> dict[Path, str]:
    file = read_train_file(layout, root, out)
    return file.contents({c: None if c == "A red coat." else f"Back: {c}" for captions in file.captions for c in captions})


def test_folder_gets_a_copy_with_train_lines_filled(tmp_path: Path) -> None:
    root = folder_data(tmp_path)
    before = (root / "metadata.jsonl").read_bytes()
    [(out, text)] = paraphrased(root, "folder").items()
    assert out == root / "metadata.back_translated.jsonl"
    original = [json.loads(line) for line in before.decode("utf-8-sig").split("\n") if line]
    expected = [
        original[0] | {"captions_bt": ["Back: A man.", "A red coat."]},
        original[1],
        original[2] | {"captions_bt": ["A red coat."]},
        original[3],
        original[4] | {"captions_bt": ["Back: Line\u2028separated, größer."]},
        original[5],
    ]
    assert [json.loads(line) for line in text.split("\n") if line] == expected
    assert (root / "metadata.jsonl").read_bytes() == before
    (root / "metadata.jsonl").write_text(text, encoding="utf-8")
    images = read_dataset("folder", root).split("train").images
    assert [image.captions_bt for image in images] == [tuple(record["captions_bt"]) for record in expected[:5:2]]


def test_tbps_keeps_its_layout_and_all_fields(tmp_path: Path) -> None:
    root = tbps_data(tmp_path)
    before = json.loads((root / "train_reid.json").read_text())
    [(out, text)] = paraphrased(root, "tbps").items()
    assert out == root / "train_reid.back_translated.json"
    assert json.loads(text) == [before[0] | {"captions_bt": ["Back: In train.", "A red coat."]}]
    assert paraphrased(root, "tbps", tmp_path / "x.json") == {tmp_path / "x.json": text}


@pytest.mark.parametrize(
    ("layout", "make"),
    [
        ("cuhk-pedes", lambda root: published_data(root, "reid_raw.json")),
        ("rstpreid", lambda root: published_data(root, "data_captions.json", "img_path")),
        ("icfg-pedes", lambda root: published_data(root, "ICFG-PEDES.json", splits="train test")),
        ("ufine6926", lambda root: published_data(root, "UFine6926_Annotations_1024.json", splits="train test")),
    ],
)
def test_published_layouts_become_the_same_data_set_in_the_layout_tbps(
    tmp_path: Path, layout: str, make: Callable[[Path], Path]
) -> None:
    root = make(tmp_path / "real")
    (tmp_path / "link").symlink_to(root)
    original = read_dataset(layout, root)
    written = paraphrased(tmp_path / "link", layout)
    assert {path.name for path in written} == {"train_reid.json", "val_reid.json", "test_reid.json"}
    for path, text in written.items():
        path.write_text(text)
    opened = read_dataset("tbps", root)
    for split in ("train", "val", "test"):
        pairs = zip(original.split(split).images, opened.split(split).images, strict=True)
        for old, new in pairs:
            assert (old.path, old.captions) == (new.path, new.captions)
            assert new.captions_bt == (tuple(f"Back: {c}" for c in old.captions) if split == "train" else ())
    assert len({i.identity for i in opened.images}) == len({i.identity for i in original.images})


def test_data_without_train_records_are_refused(tmp_path: Path) -> None:
    root = folder_data(tmp_path / "a")
    with pytest.raises(DataError, match="never overwritten"):
        read_train_file("folder", root, root / ".." / "a" / "metadata.jsonl")
    put_images(tmp_path / "b", ["0.png"])
    (tmp_path / "b" / "metadata.jsonl").write_text('{"file_name": "0.png", "caption": "a man"}')
    with pytest.raises(DataError, match="no train record"):
        read_train_file("folder", tmp_path / "b")
    tbps = tbps_data(tmp_path / "c")
    (tbps / "train_reid.json").unlink()
    with pytest.raises(DataError, match="no train record"):
        read_train_file("tbps", tbps)


# MarianMT


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_marian(tmp_path_factory.mktemp("marian") / "en-fr", ENGLISH, FRENCH, seed=2)


def by_hand(folder: Path, text: str, steps: int) -> str:
    """Greedy search, one text at a time, without cache, padding or `generate`."""
    model = MarianMTModel.from_pretrained(folder).eval()
    tokenizer = MarianTokenizer.from_pretrained(folder)
    source = torch.tensor([[*tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text))[:47], tokenizer.eos_token_id]])
    written = [tokenizer.pad_token_id]
    with torch.no_grad():
        while len(written) <= steps and (len(written) == 1 or written[-1] != tokenizer.eos_token_id):
            scores = model(input_ids=source, decoder_input_ids=torch.tensor([written])).logits[0, -1]
            scores[tokenizer.pad_token_id] = -torch.inf
            written.append(int(scores.argmax()) if len(written) < steps else tokenizer.eos_token_id)
    pieces = [tokenizer.decoder[number] for number in written if number > 1 and number != tokenizer.pad_token_id]
    return " ".join("".join(pieces).replace("▁", " ").split())


@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
def test_translations_are_those_of_a_search_by_hand(model: Path) -> None:
    texts = [*ENGLISH, "a man", "  red \n coat "]
    expected = [by_hand(model, " ".join(text.split()), 47) for text in texts]
    assert len(set(expected)) >= 3
    translate = MarianTranslator(str(model), beams=1)
    assert [translate([text])[0] for text in texts[:3]] == expected[:3]
    assert translate(texts)[:3] == expected[:3]
    assert translate(texts[3:]) == [
        by_hand(model, " ".join(text.split()), 3 * longest(model, texts[3:]) + 10) for text in texts[3:]
    ]


def longest(folder: Path, texts: Sequence[str]) -> int:
    tokenizer = MarianTokenizer.from_pretrained(folder)
    return max(len(tokenizer(text)["input_ids"]) for text in texts)


def test_beams_and_unusual_texts(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    translate = MarianTranslator(str(model), beams=4)
    texts = ["a man", "\ud800 alone", "红", "word " * 300, ">>fr<< a man"]
    result = translate(texts)
    assert len(result) == 5 and all(text == " ".join(text.split()) for text in result)
    assert not any(special in text for text in result for special in ("</s>", "<pad>", "▁"))
    assert translate(texts) == result
    written = capfd.readouterr()
    assert written.out == "" and written.err == ""


def test_an_older_model_folder_gives_the_same_translations(model: Path, tmp_path: Path) -> None:
    """Older folders hold the weights as a pickle, and have the settings of generation_config.json in config.json."""
    folder = tmp_path / "older"
    shutil.copytree(model, folder)
    weights = load_file(folder / "model.safetensors")
    weights |= {f"model.{tower}.embed_tokens.weight": weights["model.shared.weight"] for tower in ("encoder", "decoder")}
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text())
    older = {"max_length": 512, "num_beams": 6, "bad_words_ids": [[config["pad_token_id"]]], "num_labels": 3, "bos_token_id": 0}
    (folder / "config.json").write_text(json.dumps(config | older))
    (folder / "generation_config.json").unlink()
    assert MarianTranslator(str(folder), beams=2)(ENGLISH) == MarianTranslator(str(model), beams=2)(ENGLISH)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "config.json").unlink(), r"config\.json is missing"),
        (lambda f: (f / "config.json").write_text("{"), r"config\.json cannot be read"),
        (lambda f: (f / "config.json").write_text('{"model_type": "clip"}'), "'clip'.*'marian'"),
        (lambda f: (f / "source.spm").unlink(), r"source\.spm missing"),
        (lambda f: (f / "model.safetensors").write_bytes(b"no"), "cannot be read"),
        (lambda f: (f / "model.safetensors").unlink(), "cannot be read"),
        (lambda f: (f / "vocab.json").write_text("{}"), "cannot be read"),
    ],
)
def test_broken_model_folders_are_named(model: Path, tmp_path: Path, change: Callable[[Path], object], message: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    change(folder)
    with pytest.raises(ModelError, match=message) as refused:
        MarianTranslator(str(folder), beams=1)
    assert str(folder) in str(refused.value)


def test_weights_that_lack_a_layer_are_refused(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"decoder_layers": 2}))
    with pytest.raises(ModelError, match=r"lack \d+ tensors, the first model\.decoder\.layers\.1"):
        MarianTranslator(str(folder), beams=1)


def test_an_unreachable_model_names_the_download_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"'models/none' does not exist.*Helsinki-NLP/opus-mt-en-fr"):
        MarianTranslator("models/none", beams=1)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="hf download Helsinki-NLP/opus-mt-en-fr --local-dir models/opus-mt-en-fr"):
        MarianTranslator("Helsinki-NLP/opus-mt-en-fr", beams=1)
