"""`tbps data backtranslate`: paraphrases of the train captions by machine translation."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tbps.data import TrainFile


def backtranslate(
    data: Annotated[str, typer.Option(help="format of the data set: cuhk-pedes, icfg-pedes, rstpreid, tbps, ufine6926, folder")],
    root: Annotated[Path, typer.Option(help="folder of the data set")],
    forward: Annotated[
        str, typer.Option(help="MarianMT model from English to another language, folder or id")
    ] = "Helsinki-NLP/opus-mt-en-fr",
    backward: Annotated[str, typer.Option(help="MarianMT model back to English, folder or id")] = "Helsinki-NLP/opus-mt-fr-en",
    out: Annotated[Path | None, typer.Option(help="file to write; default: beside the annotation file")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="captions translated per batch")] = 32,
    beams: Annotated[int, typer.Option(min=1, help="beams of the beam search; 1 is fastest, the models were trained for 4")] = 4,
) -> None:
    """Paraphrase the train captions of a data set (`captions_bt`) by translating them to French and back.

    No file of the data set is changed. For the formats folder and tbps, a copy of the annotation file with paraphrases is written.
    For the published formats, a data set of the format tbps is written into the same folder: train_reid.json with paraphrases,
    val_reid.json and test_reid.json. Progress is stored beside the output (.journal), so that you can stop at any time and run the
    command again.

    Example: tbps data backtranslate --data cuhk-pedes --root ~/data/CUHK-PEDES --batch-size 64
    """
    from tbps.cli import console
    from tbps.data import Journal, MarianTranslator, back_translate, read_train_file
    from tbps.storage import write_text

    file = read_train_file(data, root, out)
    captions = [caption for captions in file.captions for caption in captions]
    journal_file = file.out.with_name(file.out.name + ".journal")
    _refuse_overwriting(file, journal_file)
    journal = Journal(journal_file, {"forward": forward, "backward": backward, "beams": beams})
    if not journal.known.keys() >= set(captions):
        there, back = MarianTranslator(forward, beams), MarianTranslator(backward, beams)
        with console.progress("translating", "captions") as on_progress:
            back_translate(captions, there, back, journal, batch_size, on_progress)
    for target, text in file.contents(journal.known).items():
        write_text(target, text)
    for line in (_summary(captions, journal.known, file.out), _next_step(data, root, file)):
        console.output.print(line, markup=False, highlight=False, soft_wrap=True)


def _refuse_overwriting(file: "TrainFile", journal: Path) -> None:
    """Raise DataError if the command would overwrite a file that it did not write."""
    from tbps.errors import DataError

    others = [] if journal.exists() or not file.out.exists() else [file.out]
    others += [other for other, text in file.others.items() if other.exists() and other.read_text(encoding="utf-8") != text]
    if others:
        raise DataError(f"{others[0]} exists and was not written by this command; move it away or give another --out")


def _summary(captions: list[str], paraphrases: "Mapping[str, str | None]", out: Path) -> str:
    empty = sum(paraphrases[caption] is None for caption in captions)
    same = sum(paraphrases[caption] == caption for caption in captions)
    parts = [f"{len(captions):,} captions of {len(set(captions)):,} wordings paraphrased in {out}"]
    parts += [f"{same:,} came back unchanged"] * bool(same)
    parts += [f"{empty:,} came back without a word and keep the caption"] * bool(empty)
    return "; ".join(parts)


def _next_step(data: str, root: Path, file: "TrainFile") -> str:
    if data in ("folder", "tbps"):
        source, kept = file.source, file.source.with_name(f"{file.source.name}.original")
        return f"next, to train with it: {shlex.join(['mv', str(source), str(kept)])} && " + shlex.join(
            ["mv", str(file.out), str(source)]
        )
    if file.out != root / "train_reid.json":
        return f"next: put it into {root} as train_reid.json; then --data tbps --root {shlex.quote(str(root))} opens it"
    return f"next: tbps train simplified_tbps_clip --data tbps --root {shlex.quote(str(root))} --out runs/backtranslated"
