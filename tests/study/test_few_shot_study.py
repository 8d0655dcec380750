"""Every row of the few-shot table, on a very small data set."""

import re
from pathlib import Path

from transformers import CLIPConfig

from tbps.model.bundle import load
from tbps.study.ablations import table
from tbps.study.executors import run_here
from tbps.study.plan import Material, plan, record_of, steps_of
from tbps.study.recipes import clip_adapter, coop
from tbps.study.report.files import markdown
from tbps.study.report.tables import read_study
from tbps.study.result import read_result
from tbps.study.work.operations import encode_flops
from tbps.study.work.training import Training
from tests.study.small_study import CHANGES, Recorder

SMALL = CHANGES | {"batch_size": "4", "schedule.epochs": "1"}


def test_every_row_is_run_and_reported(material: Material, tmp_path: Path) -> None:
    few_shot = table("few-shot")
    assert [row.name for row in few_shot.rows[:5]] == [
        f"1%/{name}" for name in ("clip", "coop", "clip_adapter", "tbps_clip", "simplified_tbps_clip")
    ]
    wanted = [row.name for row in few_shot.rows if not row.name.startswith("5%")]  # of so few people, 5 % is the same person as 1 %
    found = plan(few_shot, wanted, (0,), SMALL, material)
    record_of(few_shot, found, SMALL, material).save(tmp_path)
    watch = Recorder()
    run_here(tmp_path, steps_of(found), "cpu", watch, watch.stop, material.dataset)
    backbone = load(str(material.start.location))
    places = len(backbone.tokenizer("a pedestrian photo of")["input_ids"]) - 2
    learned = {"coop": places * 32, "clip_adapter": 2 * 16 * 4}
    for p in found:
        result, name = read_result(p.step.folder(tmp_path)), p.row.name.partition("/")[2]
        assert result is not None, watch.ended[p.step.fingerprint]
        assert result.values["updates"] == (2 if p.row.name.startswith("10%") else 1)  # one or two people, four pairs each
        best = load(p.step.folder(tmp_path) / "run" / "best")
        assert best.few_shot == p.row.work.train.few_shot
        if name in learned:
            assert result.values["trained"] == learned[name]
            assert result.values["parameters"] == sum(p.numel() for p in backbone.clip.parameters()) + learned[name]
    (report,) = read_study(tmp_path)
    assert len(report.rows) == 10 and all(line.paper is not None for line in report.rows)
    text = markdown([report])
    assert "of which learn |" in text
    for name, count in learned.items():
        assert re.search(rf"\| 10%/{name} \| 0 \| 0\.1 \| {count} \|", text)


def test_an_update_of_locked_towers_takes_fewer_passes() -> None:
    towers = CLIPConfig()
    image, text = encode_flops(towers, 224, 224)
    assert Training(train=coop()).update_flops(towers) == 320 * (image + 2 * text)
    assert Training(train=clip_adapter()).update_flops(towers) == 320 * (image + text)
