"""A study written by version 0.1 can be opened, has the same report, and counts as done (README.md lists its content)."""

import tarfile
from pathlib import Path

import pytest

from tbps.study.plan_record import PlanRecord
from tbps.study.report.files import write_reports
from tbps.study.report.tables import read_study
from tbps.study.result import read_result
from tbps.study.step import read_step

WRITTEN = Path(__file__).with_name("written_study.tar.xz")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    with tarfile.open(WRITTEN) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def report(written: Path) -> Path:
    folder = written / "today"
    write_reports(read_study(written / "study"), folder)
    return folder


@pytest.mark.parametrize("name", ["report.md", "summary.csv", "runs.csv"])
def test_the_report_is_the_same(name: str, written: Path, report: Path) -> None:
    assert (report / name).read_text() == (written / "report" / name).read_text()


def test_the_page_has_the_same_numbers(written: Path, report: Path) -> None:
    def cells(file: Path) -> list[str]:
        return [line.partition("</tr>")[0] for line in file.read_text().splitlines() if line.startswith("<tr>")]

    assert cells(report / "report.html") == cells(written / "report" / "report.html") != []


def test_planned_steps_equal_those_that_are_done(written: Path) -> None:
    """A step would run again if its fingerprint differed from the name of its folder."""
    folders = sorted((written / "study" / "steps").iterdir())
    assert len(folders) == 6
    for folder in folders:
        step, result = read_step(folder), read_result(folder)
        assert step.fingerprint == folder.name
        assert result is not None and (result.step, result.kind) == (step.fingerprint, step.work.kind)


def test_saving_a_record_again_does_not_change_its_file(written: Path) -> None:
    for file in sorted((written / "study" / "plans").iterdir()):
        record, before = PlanRecord.load(file), file.read_bytes()
        assert record.save(written / "study") == file
        assert file.read_bytes() == before
