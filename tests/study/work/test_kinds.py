"""Kinds of work: saving and reading, no `isinstance` checks for a kind elsewhere, and unique class names."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

import tbps
from tbps.config import Settings
from tbps.study.recipes import clip
from tbps.study.work.kinds import KINDS, parse_work
from tbps.study.work.observer import ProgressObserver
from tbps.training.observer import StepReport
from tbps.training.state import EpochResult

SOURCE = Path(tbps.__file__).parent
ROOMS = ("study", "training", "evaluation", "losses")
OPTIONS = {"compressing": {"layers": 1, "how": "frozen"}}


def trees(*rooms: str) -> dict[Path, ast.Module]:
    files = [file for room in rooms for file in sorted((SOURCE / room).rglob("*.py"))]
    return {file: ast.parse(file.read_text()) for file in files}


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_work_is_restored(kind: str) -> None:
    work = parse_work({"kind": kind, "train": clip().model_dump(mode="json"), **OPTIONS.get(kind, {})})
    assert type(work) is KINDS[kind] and parse_work(work.model_dump(mode="json")) == work


def test_no_isinstance_checks_for_a_kind_of_work() -> None:
    names = {work.__name__ for work in KINDS.values()}
    asked = [
        f"{file.relative_to(SOURCE)}:{call.lineno}"
        for file, tree in trees("study", "cli").items()
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "isinstance"
        and {name.id for name in ast.walk(call.args[1]) if isinstance(name, ast.Name)} & names
    ]
    assert asked == []


def test_class_names_of_these_packages_are_unique() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for file, tree in trees("").items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(str(file.relative_to(SOURCE)))
    twice = {name: files for name, files in found.items() if len(files) > 1}
    ours = {name: files for name, files in twice.items() if any(file.startswith(ROOMS) for file in files)}
    assert ours.keys() <= {"Step"}, "only `Step` is defined twice: a step of a study and of an augmentation policy"


def test_updates_and_probed_modules_are_reported_as_progress() -> None:
    seen: list[tuple[int, int]] = []
    observer = ProgressObserver(lambda done, total: seen.append((done, total)))
    observer.on_cache(1, 2)
    observer.on_division(1, 2)
    observer.on_epoch(EpochResult(1, 1, 0, 0, 0, 0, 0, 0))
    observer.on_step(StepReport(0, 3, 8, 0, 0, 0))
    observer.on_probe(4, 12)
    assert seen == [(3, 8), (4, 12)]


def test_only_measured_work_runs_alone() -> None:
    assert {kind for kind, work in KINDS.items() if work.alone} == {"costing"}
    assert all(issubclass(work, Settings) for work in KINDS.values())
