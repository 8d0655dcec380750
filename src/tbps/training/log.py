"""Log of a run, as JSON lines and for TensorBoard, and a plot of its curves."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, final

from torch.utils.tensorboard import SummaryWriter

from tbps.errors import CheckpointError
from tbps.storage import atomic_path, make_folder, write_text, writing_to


@final
class RunLog:
    """Write records to `log.jsonl` and scalars to `tensorboard/`. Opening the log drops records after `step`."""

    def __init__(self, folder: Path, step: int) -> None:
        self._file = make_folder(folder) / "log.jsonl"
        _cut(self._file, step)
        self._lines = self._file.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Write one line {"kind", "step", values...}, and one scalar "kind/name" per value."""
        with writing_to(self._file.parent):
            self._lines.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
            self._lines.flush()
        for name, value in values.items():
            self._board.add_scalar(f"{kind}/{name}", value, step)

    def note(self, kind: str, step: int, text: str) -> None:
        """Write one line {"kind", "step", "text"}."""
        with writing_to(self._file.parent):
            self._lines.write(json.dumps({"kind": kind, "step": step, "text": text}) + "\n")
            self._lines.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._lines.close()
        self._board.close()


@final
class NoLog:
    """A log that writes nothing, for all processes but the first."""

    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        pass

    def note(self, kind: str, step: int, text: str) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def read_log(file: Path) -> list[dict[str, float | str]]:
    """Read the records of a log, without an incomplete last line. Raises CheckpointError for any other damage."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise CheckpointError(f"{file}, line {number} is not JSON; restore the file or start a new run") from error
    return records


def _cut(file: Path, step: int) -> None:
    kept = [record for record in read_log(file) if float(record["step"]) <= step]
    if file.exists():
        write_text(file, "".join(json.dumps(record) + "\n" for record in kept))


def draw_curves(log: Path, picture: Path, title: str) -> None:
    """Plot loss, learning rate and validation metrics over the updates as a PNG."""
    from matplotlib.figure import Figure

    records = read_log(log)
    steps = [r for r in records if r["kind"] == "train"]
    epochs = [r for r in records if r["kind"] == "val"]
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    loss, rate, rank = figure.subplots(1, 3)
    loss.plot([r["step"] for r in steps], [r["loss"] for r in steps], color="tab:blue")
    loss.set(title="loss", xlabel="update")
    rate.plot([r["step"] for r in steps], [r["rate"] for r in steps], color="tab:grey")
    rate.set(title="learning rate", xlabel="update")
    for name, colour in (("r1", "tab:green"), ("map", "tab:olive")):
        label = "Rank-1" if name == "r1" else "mAP"
        rank.plot([r["step"] for r in epochs], [r[name] for r in epochs], marker="o", markersize=3, color=colour, label=label)
    rank.set(title="validation, %", xlabel="update")
    rank.legend()
    figure.suptitle(title)
    with atomic_path(picture) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
