"""Module contributions, the choice of layers by them, and retraining without these layers, on a model with two layers per tower."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from tbps.data.embedding import decoded, identities
from tbps.data.records import PersonDataset
from tbps.errors import SettingsError
from tbps.evaluation.metrics import Report, retrieval_metrics
from tbps.model.bundle import PersonModel, load
from tbps.model.clip import ModelShape, TowerShape, bottom_parameters
from tbps.model.heads import ProjectionHead
from tbps.model.surgery import Module, modules, pruned, weights_of
from tbps.study.ablations import AblationRow, AblationTable, table
from tbps.study.executors import run_here
from tbps.study.plan import Material, plan, record_of, steps_of
from tbps.study.report.files import markdown
from tbps.study.report.paper import reported
from tbps.study.report.tables import read_study
from tbps.study.step import Start, Step, StepState
from tbps.study.work.compressing import Compressing
from tbps.study.work.observer import ProgressObserver
from tbps.study.work.probing import Probe, Probed, Probing, contributions, key, least_text_layers, smallest_share
from tbps.study.work.training import Training
from tbps.study.work.work import Place
from tests.study.small_study import Recorder, lasting, quick

TRAIN, PROBE = quick(), Probe(tolerance=0.0, resolution=1 / 4)

BUNDLED = "models/mannequin-tiny"


def run(study: Path, steps: list[Step], material: Material, watch: Recorder) -> list[StepState]:
    ends = run_here(study, steps, "cpu", watch, watch.stop, material.dataset)
    assert not [end.error for end in ends.values() if end.error]
    return [end.state for end in ends.values()]


@pytest.fixture(scope="module")
def steps(material: Material) -> list[Step]:
    """Four steps: training, probing, one layer frozen, one layer dropped."""
    rows = [AblationRow("probed", Probing(train=TRAIN, probe=PROBE), None)]
    rows += [AblationRow(how, Compressing(train=TRAIN, layers=1, how=how), None) for how in ("frozen", "dropped")]
    found = plan(AblationTable("compression", "", "", tuple(rows)), (), (0,), {}, material)
    own = [step for step in steps_of(found[:1])]
    chosen = own[-1]  # has the tolerance of PROBE, so the two rows are changed to depend on it
    return [*own, *(replace(p.step, first=chosen.fingerprint) for p in found[1:])]


@pytest.fixture(scope="module")
def finished(steps: list[Step], material: Material, tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = tmp_path_factory.mktemp("compressed")
    assert run(study, steps, material, Recorder()) == [StepState.DONE] * 4
    return study


def r1_of(model: PersonModel, split: PersonDataset, arrays: np.ndarray) -> float:
    """Rank-1 from a full evaluation of the model."""
    captions = [split.images[pair.image].captions[pair.caption] for pair in split.pairs()]
    return retrieval_metrics(model.encode_texts(captions), model.encode_arrays(arrays), *identities(split)).r1


def changed(model: PersonModel, module: Module, change: Callable[[str, torch.Tensor], torch.Tensor]) -> PersonModel:
    """A copy with every parameter of the module replaced."""
    clip = copy.deepcopy(model.clip)
    for name, tensor in weights_of(clip, module).items():
        tensor.copy_(change(name, tensor))
    return PersonModel(clip, model.tokenizer, model.spec, "changed")


def test_contributions_equal_an_exhaustive_scan(material: Material, tmp_path: Path) -> None:
    """Compares C1 of all modules, and C2 of three modules at all shares, with full evaluations of the bundled model.

    The start weights are random.
    """
    assert material.dataset is not None
    split, trained = material.dataset.split("val"), load(BUNDLED)
    PersonModel(CLIPModel(trained.clip.config), trained.tokenizer, trained.spec, "random").save(tmp_path / "random")
    start = load(tmp_path / "random").clip.state_dict()
    probe = Probe(tolerance=10.0, resolution=1 / 4)
    place = Place(
        material.dataset, BUNDLED, "cpu", tmp_path, ProgressObserver(lambda *_: None), lambda: False, origin=tmp_path / "random"
    )
    outcome = Probing(train=TRAIN, probe=probe).run(place)
    assert outcome is not None and (outcome.split, outcome.queries, outcome.gallery) == ("val", 16, 8)
    r1 = partial(r1_of, split=split, arrays=np.concatenate(list(decoded(split.images, trained.spec))))
    whole = outcome.values["r1"]
    assert whole == r1(trained)

    def zeroed(name: str, tensor: torch.Tensor) -> torch.Tensor:  # a module adds 0 if its last matrix is 0
        return tensor * 0 if "out_proj" in name or "fc2" in name else tensor

    drops = {key(module): whole - r1(changed(trained, module, zeroed)) for module in modules(trained.clip)}
    largest = max(drops.values())
    assert largest == outcome.values["largest_drop"] > 0
    assert {f"c1.{name}": drop / largest for name, drop in drops.items()} == {
        name: value for name, value in outcome.values.items() if name.startswith("c1.")
    }
    crossings = 0
    for module in (Module("image", 2, "layer"), Module("text", 1, "layer"), Module("text", 3, "attention")):
        found, between = outcome.values[f"c2.{key(module)}"], [a / 4 for a in range(4)]
        holds = [
            r1(changed(trained, module, lambda name, own, a=a: (1 - a) * start[name] + a * own)) >= whole - 10 for a in between
        ] + [True]
        place_found = round(4 * found)
        assert holds[place_found] and (place_found == 0 or not holds[place_found - 1])
        if holds == sorted(holds):
            assert holds.index(True) == place_found
        crossings += place_found > 0
    assert crossings


@pytest.mark.parametrize("crossing", [0.0, 0.01, 0.3, 0.5, 0.999])
def test_bisection_finds_the_crossing(crossing: float) -> None:
    found = smallest_share(lambda a: a >= crossing, 1 / 64)
    assert crossing <= found < crossing + 1 / 64 and found * 64 == int(found * 64)


def test_bisection_finds_one_of_several_crossings() -> None:
    def holds(a: float) -> bool:
        return 0.1 <= a < 0.2 or a >= 0.6

    asked: list[float] = []
    found = smallest_share(lambda a: bool(asked.append(a)) or holds(a), 1 / 64)
    assert 0.6 <= found < 0.6 + 1 / 64  # no step of the bisection tests a share between 0.1 and 0.2
    assert holds(found) and not holds(found - 1 / 64) and len(asked) == 7


def made_up(c1: dict[int, float], c2: dict[int, float]) -> dict[str, float | None]:
    values = {f"c1.text.{layer}.layer": value for layer, value in c1.items()}
    values |= {f"c2.text.{layer}.layer": value for layer, value in c2.items()}
    # parts of layers and the image tower must not count
    return {**values, "c1.text.1.attention": -9.0, "c2.image.1.layer": -9.0, "c1.image.11.layer": -9.0, "r1": 50.0}


def test_the_layers_of_the_smallest_sums_are_chosen() -> None:
    values = made_up({1: 1.0, 2: 0.2, 3: 0.1, 4: -0.1, 10: 0.3}, {1: 0.5, 2: 0.2, 3: 0.3, 4: 0.8, 10: 0.0})
    # sums: 1.5, 0.4, 0.4, 0.7, 0.3
    assert [least_text_layers(values, count) for count in range(1, 5)] == [(10,), (2, 10), (2, 3, 10), (2, 3, 4, 10)]


def test_contributions_by_hand() -> None:
    whole = Report(r1=60.0, r5=80.0, r10=90.0, map=50.0, minp=20.0, queries=10, gallery=5, ranks={})
    found = contributions(
        whole,
        {"image.1.layer": Probed(20.0, 0.5, 1.0), "text.1.layer": Probed(50.0, 0.25, 1.0), "text.2.layer": Probed(61.0, 0.0, 1.0)},
    )
    assert found["largest_drop"] == 40.0
    assert [found[f"c1.{name}"] for name in ("image.1.layer", "text.1.layer", "text.2.layer")] == [1.0, 0.25, -1 / 40]
    assert found["c2.text.1.layer"] == 0.25
    assert contributions(whole, {"text.1.layer": Probed(61.0, 0.0, 1.0)})["c1.text.1.layer"] == 0.0


def test_frozen_layers_keep_their_bits_and_dropped_ones_are_gone(steps: list[Step], finished: Path, material: Material) -> None:
    start = load(str(material.start.location)).clip.state_dict()
    frozen, dropped = (load(step.folder(finished) / "run" / "best").clip for step in steps[2:])
    values = [lasting(finished, step).values for step in steps[2:]]
    chosen = least_text_layers(lasting(finished, steps[1]).values, 1)
    assert [value["chosen.1"] for value in values] == [chosen[0]] * 2
    inside = f"text_model.encoder.layers.{chosen[0] - 1}."
    same = {name for name, tensor in frozen.state_dict().items() if torch.equal(tensor, start[name])}
    assert {name for name in start if name.startswith(inside)} <= same
    other = f"text_model.encoder.layers.{2 - chosen[0]}."
    assert not {name for name in same if name.startswith(other) and "k_proj.bias" not in name}  # a key bias has no gradient
    assert dropped.config.text_config.num_hidden_layers == 1 and dropped.config.vision_config.num_hidden_layers == 2
    assert values[0]["trained"] == values[1]["trained"] == values[1]["parameters"] < values[0]["parameters"]


def test_probing_stopped_between_modules_and_resumed_gives_the_same_result(
    steps: list[Step], finished: Path, material: Material, tmp_path: Path
) -> None:
    training = steps[0].folder(tmp_path)
    training.parent.mkdir(parents=True)
    training.symlink_to(steps[0].folder(finished))
    assert run(tmp_path, steps[1:2], material, Recorder(stop_after=5)) == [StepState.STOPPED]
    kept = json.loads((steps[1].folder(tmp_path) / "probed.json").read_text())
    assert len(kept) == 5
    watch = Recorder()
    assert run(tmp_path, steps[1:2], material, watch) == [StepState.DONE]
    assert [(done, total) for _, done, total in watch.updates] == [(done, 12) for done in range(6, 13)]
    assert lasting(tmp_path, steps[1]) == lasting(finished, steps[1])


def test_a_table_shares_its_training_and_probing(material: Material) -> None:
    deep = replace(material, towers=CLIPConfig())
    steps = steps_of(plan(table("compression"), (), (0, 1), {}, deep))
    kinds = [step.work.kind for step in steps]
    # two models and two seeds; the rows "MODEL/0" are the trainings that are probed
    assert {kind: kinds.count(kind) for kind in kinds} == {"training": 4, "probing": 4, "compressing": 40}
    assert {step.fingerprint for step in steps_of(plan(table("contribution"), (), (0, 1), {}, deep))} <= {
        s.fingerprint for s in steps
    }
    position = {step.fingerprint: number for number, step in enumerate(steps)}
    assert all(step.first is None or position[step.first] < position[step.fingerprint] for step in steps)


def test_rows_that_need_more_layers_than_the_model_has_are_named(material: Material, tmp_path: Path) -> None:
    planned = plan(table("compression"), (), (0,), {}, material)
    possible = {p.row.name for p in planned if not p.refused}
    assert possible == {
        f"{model}/{row}" for model in ("tbps_clip", "simplified_tbps_clip") for row in ("0", "1 frozen", "1 dropped")
    }
    assert {p.refused for p in planned if p.refused} == {"the text tower has 2 layers"}
    record_of(table("compression"), planned, {}, material).save(tmp_path)
    (report,) = read_study(tmp_path)
    (reason,) = report.not_run
    assert reason.startswith("the text tower has 2 layers: tbps_clip/2 frozen, ") and reason.count(",") == 15
    assert len(report.rows) == 6 and all(name in reason for name in {p.row.name for p in planned} - possible)
    said = markdown([report])
    assert "- Not run: the text tower has 2 layers: tbps_clip/2 frozen, tbps_clip/3 frozen," in said and "failed" not in said


def test_layers_are_counted_after_pruning(material: Material) -> None:
    """The towers are given, pruned, or built with random weights."""

    def refusals(changes: dict[str, Any], given: Material) -> list[str]:
        return [p.refused for p in plan(table("compression"), ("tbps_clip/1 frozen", "tbps_clip/3 dropped"), (0,), changes, given)]

    deep = replace(material, towers=CLIPConfig())
    assert refusals({}, deep) == ["", ""]
    assert refusals({"prune.depth": 0.25}, deep) == ["", "the text tower has 3 layers"]
    assert refusals({"prune.depth": 0.01}, deep) == ["the text tower has 1 layer"] * 2
    tower = TowerShape(width=32, layers=3, heads=2)
    shape = ModelShape(image=tower, text=tower, image_size=32, patch=8, vocabulary=600)
    nothing = replace(material, start=Start("random weights", None, "none"), towers=None)
    assert refusals({"shape": shape.model_dump()}, nothing) == ["", "the text tower has 3 layers"]


@pytest.mark.parametrize("model", ["tbps_clip", "simplified_tbps_clip"])
@pytest.mark.parametrize("how", ["frozen", "dropped"])
@pytest.mark.parametrize("layers", range(1, 6))
def test_the_number_of_learned_parameters_is_the_papers(model: str, how: str, layers: int) -> None:
    """ViT-B/16; any text layers may be frozen or dropped, because all have the same size."""
    row = table("compression").row(f"{model}/{layers} {how}")
    work: Any = row.work
    settings = work.settings(range(3, 3 + layers))
    with torch.device("meta"):
        clip = pruned(CLIPModel(CLIPConfig(vision_config={"patch_size": 16})), settings.prune)
        head = ProjectionHead(512) if settings.losses.ss_image else torch.nn.Module()
    locked = sum(parameter.numel() for parameter in bottom_parameters(clip, settings.lock))
    count = sum(parameter.numel() for part in (clip, head) for parameter in part.parameters()) - locked
    paper = reported("compression", row.name, "cuhk-pedes", "ViT-B/16")
    assert paper is not None and round(count / 1e6, 1) == paper.values["trained_m"]
    assert len(clip.text_model.encoder.layers) == 12 - layers * (how == "dropped")


def test_layers_are_chosen_by_probing_a_training_with_the_same_settings(material: Material) -> None:
    for p in plan(table("compression"), ("tbps_clip/1 frozen",), (0,), {"batch_size": 16}, material):
        assert [step.work.kind for step in p.before] == ["training", "probing"]
        assert isinstance(p.before[0].work, Training) and p.before[0].work.train == p.step.work.train


def test_settings_of_the_probe_reach_the_probings_only(material: Material) -> None:
    deep, change = replace(material, towers=CLIPConfig()), {"probe.tolerance": "1.5"}

    def steps(changes: dict[str, str]) -> list[Step]:
        return steps_of(plan(table("compression"), ("tbps_clip/0", "tbps_clip/1 frozen"), (0,), changes, deep))

    (training, probing, frozen), (same, stricter, on_top) = steps({}), steps(change)
    assert training.fingerprint == same.fingerprint
    assert isinstance(probing.work, Probing) and isinstance(stricter.work, Probing)
    assert (probing.work.probe.tolerance, stricter.work.probe.tolerance) == (3.0, 1.5)
    assert frozen.work == on_top.work and on_top.first == stricter.fingerprint != frozen.first
    (alone,) = plan(table("contribution"), ("tbps_clip",), (0,), change, deep)
    assert alone.step == stricter
    with pytest.raises(SettingsError, match=r"nothing in table tricks has a setting 'probe.tolerance'; contribution, compression"):
        plan(table("tricks"), (), (0,), change, deep)
    with pytest.raises(SettingsError, match=r"unknown setting 'probe.tolerence'; did you mean 'probe.tolerance'\?"):
        plan(table("contribution"), (), (0,), {"probe.tolerence": 1}, deep)
