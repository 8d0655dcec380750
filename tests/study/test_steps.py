"""Steps run in this process: once, resumed exactly, reported if they fail, and started from the model of another step."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tbps.errors import CheckpointError, SettingsError
from tbps.study.ablations import AblationRow, AblationTable
from tbps.study.executors import run_here
from tbps.study.plan import Material, plan, steps_of
from tbps.study.result import RESULT
from tbps.study.step import ERROR, Data, Start, Step, StepState, data_fingerprint, read_error, read_step, write_step
from tbps.study.work.training import Training
from tests.study.small_study import Recorder, lasting, planned, quick, three_rows


def run(study: Path, steps: list[Step], material: Material, watch: Recorder) -> dict[str, StepState]:
    ends = run_here(study, steps, "cpu", watch, watch.stop, material.dataset)
    return {name: end.state for name, end in ends.items()}


@pytest.fixture(scope="module")
def finished(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = tmp_path_factory.mktemp("finished")
    states = run(study, steps_of(planned(three_rows(), material)), material, Recorder())
    assert list(states.values()) == [StepState.DONE] * 3
    return study


def test_stopped_and_resumed_equals_uninterrupted(material: Material, finished: Path, tmp_path: Path) -> None:
    steps = steps_of(planned(three_rows(), material))
    first = run(tmp_path, steps, material, Recorder(stop_after=1))  # stops at the end of the first epoch, after 4 updates
    assert list(first.values()) == [StepState.STOPPED]
    second = run(tmp_path, steps, material, Recorder(stop_after=2))
    assert list(second.values()) == [StepState.DONE, StepState.STOPPED]
    third = run(tmp_path, steps, material, Recorder())
    assert list(third.values()) == [StepState.DONE] * 3
    assert [lasting(tmp_path, step) for step in steps] == [lasting(finished, step) for step in steps]
    assert all((step.folder(tmp_path) / "run" / "best").is_dir() for step in steps)
    assert not list(tmp_path.glob("steps/*/run/checkpoints"))


def test_finished_steps_are_not_run_again(material: Material, finished: Path) -> None:
    steps = steps_of(planned(three_rows(), material))
    before = {step: (step.folder(finished) / RESULT).stat().st_mtime_ns for step in steps}
    watch = Recorder()
    assert set(run(finished, steps, material, watch).values()) == {StepState.DONE} and not watch.updates
    assert before == {step: (step.folder(finished) / RESULT).stat().st_mtime_ns for step in steps}


def test_results_name_their_seed_data_and_start(material: Material, finished: Path) -> None:
    (plain, _, few) = (p.step for p in planned(three_rows(), material))
    result = lasting(finished, plain)
    assert result.seed == 0 and result.data_fingerprint == material.data.fingerprint
    assert result.start_fingerprint == material.start.fingerprint
    assert (result.queries, result.gallery) == (24, 12)
    assert result.values["updates"] == 8  # 64 pairs in batches of 16, two epochs
    assert lasting(finished, few).values["updates"] == 4
    assert result.values["ceiling_r1"] > result.values["chance_r1"] > 0
    report = json.loads((plain.folder(finished) / "run" / "report.json").read_text())
    assert report["model"]["r1"] == result.values["r1"]


def test_a_failed_step_is_reported_and_the_others_run(material: Material, tmp_path: Path) -> None:
    rows = (
        AblationRow("plain", Training(train=quick()), None),
        AblationRow("too large", Training(train=quick(batch_size=1000)), "plain"),
        AblationRow("on top", Training(train=quick()), "plain", start=Training(train=quick(batch_size=1000))),
        AblationRow("seed", Training(train=quick(text_attention_dropout=0.1)), "plain"),
    )
    found = planned(AblationTable("tricks", "", "", rows), material)
    states = run(tmp_path, steps_of(found), material, Recorder())
    by_row = {p.row.name: states[p.step.fingerprint] for p in found}
    assert by_row == {"plain": StepState.DONE, "too large": StepState.FAILED, "on top": StepState.FAILED, "seed": StepState.DONE}
    folder = found[1].step.folder(tmp_path)
    assert "do not fill one batch of 1000" in str(read_error(folder)) and not (folder / RESULT).exists()
    assert "DataError" in json.loads((folder / ERROR).read_text())["traceback"]
    assert "is not done" in str(read_error(found[2].step.folder(tmp_path)))


def test_a_step_starts_from_the_model_of_another(material: Material, tmp_path: Path) -> None:
    first = Training(train=quick(text_attention_dropout=0.2))
    rows = (
        AblationRow("plain", Training(train=quick()), None),
        AblationRow("on top", Training(train=quick()), "plain", start=first),
    )
    found = planned(AblationTable("tricks", "", "", rows), material)
    assert found[0].step.fingerprint != found[1].step.fingerprint
    watch = Recorder()
    assert set(run(tmp_path, steps_of(found), material, watch).values()) == {StepState.DONE}
    assert found[1].first is not None and watch.started.index(found[1].first.fingerprint) < watch.started.index(
        found[1].step.fingerprint
    )
    assert lasting(tmp_path, found[0].step).values != lasting(tmp_path, found[1].step).values


def test_a_folder_that_another_process_has_locked_is_not_changed(material: Material, tmp_path: Path) -> None:
    import fcntl

    step = planned(three_rows(), material)[0].step
    folder = step.folder(tmp_path)
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        watch = Recorder()
        assert run(tmp_path, [step], material, watch) == {step.fingerprint: StepState.FAILED}
    assert "another process" in watch.ended[step.fingerprint].error and not (folder / "run").exists()


def test_the_fingerprint_depends_on_work_data_and_start_only(material: Material) -> None:
    step = planned(three_rows(), material)[0].step
    moved = replace(step, data=Data("folder", "/elsewhere", step.data.fingerprint), start=replace(step.start, location="/b"))
    assert moved.fingerprint == step.fingerprint
    others = [
        replace(step, work=step.work.seeded(1)),
        replace(step, work=Training(train=quick(), identities=0.9)),
        replace(step, data=replace(step.data, fingerprint="0")),
        replace(step, start=Start("other", None, "0")),
        replace(step, first="0"),
    ]
    assert len({step.fingerprint, *(other.fingerprint for other in others)}) == 6


def test_a_step_is_read_as_it_was_written(material: Material, tmp_path: Path) -> None:
    for p in planned(three_rows(), material):
        assert read_step(write_step(tmp_path, p.step)) == p.step
    (p.step.folder(tmp_path) / "step.json").write_text("{")
    with pytest.raises(CheckpointError, match="run the study's command again"):
        read_step(p.step.folder(tmp_path))


def test_data_that_changed_since_the_plan_are_refused(material: Material, tmp_path: Path) -> None:
    step = planned(three_rows(), material)[0].step
    other = replace(step, data=replace(step.data, fingerprint="0" * 16))
    watch = Recorder()
    run_here(tmp_path, [other], "cpu", watch, watch.stop)
    assert "has changed since" in watch.ended[other.fingerprint].error


def test_the_data_fingerprint_sees_captions_and_splits(material: Material) -> None:
    assert material.dataset is not None
    one, *rest = material.dataset.images
    for changed in (replace(one, captions=("a person", *one.captions[1:])), replace(one, split="val"), replace(one, identity=99)):
        assert data_fingerprint(replace(material.dataset, images=(changed, *rest))) != material.data.fingerprint


def test_a_missing_model_is_named(material: Material) -> None:
    without = replace(material, start=Start("random weights", None, "none"))
    with pytest.raises(SettingsError, match="give one with --model"):
        plan(three_rows(), (), (0,), {}, without)


def test_recorded_errors_hold_no_password(material: Material, tmp_path: Path) -> None:
    """Errors of other libraries may contain addresses with passwords, for example of a proxy or a cluster."""

    class Unreachable(Recorder):
        def on_update(self, step: Step, done: int, total: int) -> None:
            raise ConnectionError("cannot reach ray://me:s3cr3t@head:10001")

    found = planned(AblationTable("tricks", "", "", (AblationRow("plain", Training(train=quick()), None),)), material)
    assert set(run(tmp_path, steps_of(found), material, Unreachable()).values()) == {StepState.FAILED}
    kept = (found[0].step.folder(tmp_path) / ERROR).read_text()
    assert "ray://***@head:10001" in kept and "s3cr3t" not in kept
