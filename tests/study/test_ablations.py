"""The ablation tables cover the paper: every row of its tables is run, printed for reference, or listed as missing."""

from typing import Any

import pytest
import yaml

from tbps.data.augment.image import ImageAugmentation
from tbps.errors import SettingsError
from tbps.study.ablations import LITERATURE, OURS, TABLES, AblationRow, table
from tbps.study.recipes import clip_star, tbps_clip
from tbps.study.report.paper import paper_rows, reported
from tbps.study.work.cost import Costing
from tbps.study.work.kinds import parse_work

YAML = "src/tbps/study/report/paper_tables.yaml"


def difference(one: Any, other: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys of the settings that differ, with their values in `other`."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return {} if one == other else {prefix: other}
    found: dict[str, Any] = {}
    for key in one:
        found |= difference(one[key], other[key], f"{prefix}.{key}" if prefix else key)
    return found


def changes(row: AblationRow, name: str) -> dict[str, Any]:
    base = table(name).row(str(row.base))
    return difference(base.work.train.model_dump(), row.work.train.model_dump())


def leaves(node: Any) -> int:
    """Number of rows of numbers in a table of the YAML file, whatever its nesting."""
    if isinstance(node, list):
        return 1
    if not isinstance(node, dict):
        return 0
    numbers = sum(isinstance(value, int | float) and not isinstance(value, bool) for key, value in node.items() if key != "used")
    return 1 if numbers else sum(leaves(value) for value in node.values())


def test_the_reader_finds_every_row_of_the_file(request: pytest.FixtureRequest) -> None:
    file = yaml.safe_load((request.config.rootpath / YAML).read_text())
    file["compression"].pop("findings")
    counted = {name: leaves({k: v for k, v in values.items() if k != "columns"}) for name, values in file.items()}
    counted["irra"] = counted.pop("irra_on_top")
    counted["compression"] = 2 * (2 * counted["compression"] - 1)  # two models; frozen, dropped; one row for 0 layers
    for name in ("image_augmentation_strength", "text_augmentation_strength"):
        counted[name] += 1  # the base row, which the file holds in another table
    for name, count in counted.items():
        assert sum(row.table == name.replace("_", "-") for row in paper_rows()) == count, name


def test_every_row_of_the_paper_is_run_or_listed_as_literature() -> None:
    ours = {(name, row.name) for name in TABLES for row in table(name).rows if table(name).source != OURS}
    paper = {(row.table, row.row) for row in paper_rows()}
    assert paper <= ours | {*LITERATURE}
    assert not ours & {*LITERATURE}
    assert {*LITERATURE} <= paper
    extra = {("cost", "clip"), ("cost", "clip_star"), ("cost", "simplified_tbps_clip")}
    extra |= {("contribution", "simplified_tbps_clip"), ("contribution", "tbps_clip")}  # figures
    assert ours - paper == extra


@pytest.mark.parametrize("name", TABLES)
def test_bases_exist_and_rows_differ(name: str) -> None:
    rows = table(name).rows
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert parse_work(row.work.model_dump(mode="json")) == row.work
        if row.base is not None:
            base = table(name).row(row.base)
            assert (row.work, row.start) != (base.work, base.start)


def test_rows_change_the_settings_in_their_name() -> None:
    names = ("tricks", "losses", "pair-augmentation")
    found = {name: [changes(row, name) for row in table(name).rows if row.base] for name in names}
    assert all(len(changed) == 1 for changed in found["tricks"][:4])
    assert len(found["tricks"][4]) == 5, "all four tricks, and shards = 1, since shards have no effect with global gradients"
    assert found["losses"][0] == {"losses.n_itc.labels": "identity"}
    assert found["losses"][3] == {"losses.ss.weight": 0.4, "losses.ss.views": "both"}
    assert found["losses"][9] == {
        "losses.n_itc.labels": "identity",
        "losses.mvs.views": "image",
        "losses.ss.weight": 0.4,
        "losses.r_itc.weight": 1.0,
        "losses.c_itc.weight": 0.1,
        "seed": 1,
    }
    assert table("losses").row("tbps_clip").work.train == tbps_clip()
    assert found["pair-augmentation"] == [{"pair_augmentation.method": name} for name in ("mixgen", "concatgen")]


def test_the_papers_strengths_have_the_settings_of_the_tables_without_strengths() -> None:
    kept = {
        "random_resized_crop.min_scale=0.9": "random_resized_crop",
        "random_erasing.scale=0.10-0.20": "random_erasing",
        "gaussian_blur.kernel=3": "gaussian_blur",
        "color_jitter.bcs=0.1": "color_jitter_bcs",
        "color_jitter.hue=0.1": "color_jitter_hue",
        "random_rotation.degrees=15": "random_rotation",
    }
    strengths, alone = table("image-augmentation-strength"), table("image-augmentation")
    assert all(strengths.row(row).work == alone.row(name).work for row, name in kept.items())
    text = {"back_translation=0.1": "back_translation", "random_deletion=0.05": "random_deletion", "eda=0.05": "eda"}
    strengths, alone = table("text-augmentation-strength"), table("text-augmentation")
    assert all(strengths.row(row).work == alone.row(name).work for row, name in text.items())
    combined = table("augmentation-combined")
    assert combined.row("image").work == table("image-augmentation").row("augmentation_pool").work
    assert combined.row("text").work == table("text-augmentation").row("stacking_together").work
    assert combined.row("image+text").work == table("losses").row("clip*+aug").work
    assert combined.row("clip*").work.train == clip_star()


def test_image_rows_switch_augmentation_on() -> None:
    for row in table("image-augmentation").rows[1:]:
        augmentation = row.work.train.image_augmentation
        assert augmentation == ImageAugmentation(method=augmentation.method)


def test_irra_starts_from_a_model_trained_before() -> None:
    rows = table("irra").rows
    assert [row.start is None for row in rows] == [True, False, False]
    image = rows[0].work.train.image
    assert image is not None and (image.height, image.width) == (384, 128)
    assert all(isinstance(row.work, Costing) for row in table("cost").rows)


@pytest.mark.parametrize("share", ["1%", "5%", "10%"])
def test_few_shot_rows_differ_in_the_trained_parameters(share: str) -> None:
    def changed(name: str) -> dict[str, Any]:
        row = table("few-shot").row(f"{share}/{name}")
        assert row.base == f"{share}/clip" and row.work.identities == float(share[:-1]) / 100
        return changes(row, "few-shot")

    prompt = {"prompt": "a pedestrian photo of", "adapter_ratio": None}
    assert changed("coop") == {"few_shot": prompt, "schedule.peak_rate": 2e-3}
    assert changed("clip_adapter") == {"few_shot": {"prompt": None, "adapter_ratio": 0.4}, "schedule.peak_rate": 1e-3}


def test_the_reference_is_of_the_same_data_and_backbone_where_there_is_one() -> None:
    def of(dataset: str, backbone: str | None) -> float:
        row = reported("benchmarks", "tbps_clip", dataset, backbone)
        assert row is not None
        return row.values["r1"]

    assert of("cuhk-pedes", "ViT-B/32") == 69.54 and of("cuhk-pedes", "ViT-B/16") == 73.54
    assert of("rstpreid", "ViT-B/32") == 56.65 and of("icfg-pedes", None) == 65.05
    assert of("folder", None) == 73.54
    assert reported("benchmarks", "nobody", "cuhk-pedes", None) is None


def test_unknown_names_are_refused() -> None:
    with pytest.raises(SettingsError, match="there are tricks"):
        table("trick")
    with pytest.raises(SettingsError, match=r"there are clip, clip\+globalgrad"):
        table("tricks").row("dropout")
