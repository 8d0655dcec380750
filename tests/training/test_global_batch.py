"""The gradient of the global batch does not depend on the number of processes (1, 2, 4) or on the size of micro-batches.

Every loss is tested with the tiny model in float64, where the gradients differ by the order of sums only, and in float32 and
bfloat16 within rounding. Without global gradients (recipe `clip`), embeddings from other processes are constants.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tbps.distributed import average, rank, total, world_size
from tbps.errors import SettingsError
from tbps.losses import c_itc, identity_targets, n_itc, nt_xent, r_itc, sdm, tal
from tbps.losses.classification import UNMASKED, mask_tokens
from tbps.model.bundle import load
from tbps.model.cross_modal import CrossModalEncoder
from tbps.model.heads import Heads, IdentityClassifier, ProjectionHead
from tbps.model.surgery import without_layers
from tbps.model.tokens import padded_to, tokenise
from tbps.study.recipes import clip, simplified_tbps_clip
from tbps.training.encode import PartEncoder, dropout_from, encode
from tbps.training.gradient_cache import backward
from tbps.training.objective import Features, Labels, Losses, LossSettings, objective
from tbps.training.objective import shards as the_shards
from tbps.training.settings import TrainSettings
from tbps.training.views import Views

PAIRS, ALPHA = 8, 0.3
OFF = {"n_itc.weight": 0, "r_itc.weight": 0}
LOSSES: dict[str, dict[str, object]] = {
    "itc": {"r_itc.weight": 0, "n_itc.labels": "pair"},
    "n_itc": {"r_itc.weight": 0},
    "separate": {"r_itc.weight": 0, "n_itc.soft_pass": "separate"},
    "separate mvs": {"r_itc.weight": 0, "n_itc.soft_pass": "separate", "mvs.views": "both"},
    "mvs_i": {"r_itc.weight": 0, "mvs.views": "image"},
    "mvs_t": {"r_itc.weight": 0, "mvs.views": "text"},
    "mvs_it": {"r_itc.weight": 0, "mvs.views": "both"},
    "ss_i": OFF | {"ss.weight": 0.4},
    "ss_t": OFF | {"ss.weight": 0.4, "ss.views": "text"},
    "ss_it": OFF | {"ss.weight": 0.4, "ss.views": "both"},
    "r_itc": {"n_itc.weight": 0},
    "c_itc": OFF | {"c_itc.weight": 0.1},
    "sdm": OFF | {"sdm.weight": 1, "sdm.scale": 5},
    "tal": OFF | {"tal.weight": 1},
    "smooth": {"r_itc.weight": 0, "n_itc.smoothing": 0.1},
    "id": OFF | {"id.weight": 1},
    "mlm": OFF | {"mlm.weight": 1, "mlm.probability": 0.4},
    "mlm in context": OFF | {"mlm.weight": 1, "mlm.probability": 0.4, "mlm.padding": "context"},
    "weighted": {"mvs.views": "image", "sdm.weight": 0.2, "sdm.scale": 5, "tal.weight": 1},
    "mixed": {"sdm.weight": 0.2, "sdm.scale": 5, "tal.weight": 1, "id.weight": 1},
    "distill": OFF | {"distill.weight": 1, "distill.scale": 20},
    "tbps_clip": {"ss.weight": 0.4, "mvs.views": "image", "c_itc.weight": 0.1},
    "all": {"ss.weight": 0.4, "ss.views": "both", "mvs.views": "both", "c_itc.weight": 0.1}
    | {"sdm.weight": 0.2, "sdm.scale": 5, "id.weight": 0.3, "mlm.weight": 0.7},
}
LOCAL: dict[str, dict[str, object]] = {
    "clip": clip().losses.model_dump() | {"shards": 1},
    "several": LossSettings()
    .override(
        {"global_gradients": False, "c_itc.weight": 0.1, "ss.weight": 0.4, "sdm.weight": 0.2, "sdm.scale": 5, "tal.weight": 1}
    )
    .model_dump(),
}
CAPTIONS = [
    "a woman in a red coat",
    "the man wears a navy jacket and black trousers",
    "black backpack",
    "a man",
    "the woman wears a black jacket with a red backpack and navy trousers",
    "trousers, black",
    "a red woman",
    "a coat",
]


SHARDED = {f"{name} of four": losses | {"shards": 4} for name, losses in LOCAL.items()}
CUT = ("mlm", "mlm in context")


def settings_of(name: str, precision: str = "float32") -> TrainSettings:
    local = LOCAL | SHARDED
    losses = local[name] if name in local else LossSettings().override(LOSSES[name]).model_dump()
    return simplified_tbps_clip().override({"losses": losses, "text_attention_dropout": 0, "text_parts": 2, "precision": precision})


class Bench:
    """The tiny model with all heads and a batch with all views; computes gradients of the whole batch or of micro-batches."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float64) -> None:
        model = load(folder)
        generator = torch.Generator().manual_seed(0)
        torch.manual_seed(1)
        self.clip = model.clip.to(dtype)
        self.teacher = without_layers(self.clip, image=[1], text=[2])
        vocabulary = self.clip.config.text_config.vocab_size
        self.heads = Heads(
            ProjectionHead(model.dim, 8),
            ProjectionHead(model.dim, 8),
            IdentityClassifier(model.dim, 6),
            CrossModalEncoder(model.dim, vocabulary, layers=1),
        ).to(dtype)
        pixels = [torch.randn(PAIRS, 3, 32, 32, generator=generator, dtype=torch.float64).to(dtype) for _ in range(4)]
        tokens, second = (tokenise(model.tokenizer, texts, model.context_length) for texts in (CAPTIONS, CAPTIONS[::-1]))
        masked, words = mask_tokens(tokens, vocabulary - 3, vocabulary - 3, 0.4, generator)
        self.views = Views(pixels[0], tokens, pixels[1], second, pixels[2], pixels[3], masked, words)
        self.identities = torch.tensor([3, 7, 7, 1, 0, 3, 9, 4])
        self.mixed_with = torch.tensor([3, 7, 1, 1, 0, 9, 9, 3])
        self.weights = torch.tensor([1, 0, 1, 1, 0, 1, 0.5, 1])
        self._whole: dict[tuple[str, str], dict[str, torch.Tensor]] = {}

    def labels(self, name: str, rows: slice) -> Labels:
        return Labels(
            self.identities[rows],
            self.identities.unique(),
            self.mixed_with[rows] if name == "mixed" else None,
            self.weights[rows] if name == "weighted" else None,
        )

    def whole(self, name: str, precision: str = "float32") -> dict[str, torch.Tensor]:
        """Gradients of the whole batch at once, computed once per bench."""
        if (name, precision) not in self._whole:
            self._whole[name, precision] = self.gradients(name, PAIRS, precision)
        return self._whole[name, precision]

    def gradients(self, name: str, micro: int, precision: str = "float32", *, cut: bool = False) -> dict[str, torch.Tensor]:
        """`cut`: pads captions to the longest caption of this process only, as batches in training do."""
        settings = settings_of(name, precision)
        losses, share = settings.losses, PAIRS // world_size()
        teacher = self.teacher if losses.distill.weight > 0 else None
        mine = slice(rank() * share, (rank() + 1) * share)
        views = self._needed(self.views.part(mine), losses)
        if cut:
            views = self._cut(views, settings)
        labels = self.labels(name, mine)
        for module in (self.clip, self.heads):
            module.zero_grad()

        encoder = PartEncoder(self.clip, self.heads, views, settings, 0, micro, teacher)

        def loss(features: Features) -> Losses:
            return objective(features, labels, self.clip.logit_scale.exp(), ALPHA, self.heads, losses)

        found = backward(encoder, -(-share // micro), loss, losses.mlm.weight, world_size())
        parameters = [
            (name, p) for module in (self.clip, self.heads) for name, p in module.named_parameters() if p.grad is not None
        ]
        average([p.grad for _, p in parameters if p.grad is not None])
        mean = total(found.total.detach().clone()) / world_size()
        return {"loss": mean} | {name: p.grad.clone() for name, p in parameters if p.grad is not None}

    def _cut(self, views: Views, settings: TrainSettings) -> Views:
        assert views.masked is not None and views.words is not None
        longest = int(views.text.argmax(dim=1).max()) + 1
        masked, words = views.masked[:, :longest], views.words[:, :longest]
        if settings.losses.mlm.padding == "context":
            context = self.clip.config.text_config.max_position_embeddings
            words = torch.nn.functional.pad(words, (0, context - longest), value=UNMASKED)
            masked = padded_to(masked, context)
        return replace(views, text=views.text[:, :longest], masked=masked, words=words)

    def _needed(self, views: Views, losses: LossSettings) -> Views:
        count = total((views.words != UNMASKED).sum().double()) if views.words is not None else torch.ones(())
        mlm = losses.mlm.weight > 0
        return Views(
            views.image,
            views.text,
            views.image_second if losses.second_image else None,
            views.text_second if losses.second_text else None,
            views.strong_one if losses.ss_image else None,
            views.strong_two if losses.ss_image else None,
            views.masked if mlm else None,
            views.words if mlm else None,
            float(count),
        )


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], what: str) -> None:
    assert one.keys() == other.keys(), what
    for name, gradient in one.items():
        # gradients are of the order of 1, and float64 sums are added in another order
        torch.testing.assert_close(
            other[name], gradient, atol=1e-9, rtol=1e-7, msg=lambda text, name=name: f"{what} {name}: {text}"
        )


@pytest.fixture(scope="module")
def bench(tiny_model_folder: Path) -> Bench:
    return Bench(tiny_model_folder)


@pytest.fixture(scope="module")
def bench32(tiny_model_folder: Path) -> Bench:
    return Bench(tiny_model_folder, torch.float32)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("micro", [1, 3, 4])
def test_micro_batches_have_the_gradient_of_the_whole_batch(bench: Bench, name: str, micro: int) -> None:
    whole = bench.whole(name)
    assert any(bool(gradient.abs().max() > 0) for key, gradient in whole.items() if key != "loss")
    same(whole, bench.gradients(name, micro), f"{name} in micro-batches of {micro}")


def alike(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], tolerance: float, what: str) -> None:
    """Asserts that each gradient differs by at most `tolerance` times its norm (at least 1/1000 of the largest norm)."""
    assert one.keys() == other.keys(), what
    largest = max(float(gradient.norm()) for name, gradient in one.items() if name != "loss")
    for name, gradient in one.items():
        off = float((other[name] - gradient).norm()) / max(float(gradient.norm()), 1e-3 * largest)
        assert off < tolerance, f"{what} {name}: {off}"


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.08)])
def test_in_float32_and_bfloat16_micro_batches_have_the_gradient_up_to_rounding(
    bench32: Bench, name: str, precision: str, tolerance: float
) -> None:
    """Measured: 5e-6 in float32 and 0.03 in bfloat16; a missing micro-batch would give far more than 0.08.

    bfloat16 keeps 8 bits: the gradient of each micro-batch is rounded by 0.2 %, more relative to sums that nearly cancel.
    """
    alike(bench32.whole(name, precision), bench32.gradients(name, 3, precision), tolerance, f"{precision} {name}")


@pytest.mark.parametrize("name", LOSSES)
def test_only_the_views_of_losses_that_are_on_are_encoded(bench: Bench, name: str) -> None:
    losses = settings_of(name).losses
    views = bench._needed(bench.views, losses)
    features = encode(bench.clip, bench.heads, views, settings_of(name), calm=True, words=True)
    absent = {key for key in Features.__slots__ if getattr(features, key) is None}
    assert ("image_second" in absent) is not (name in ("mvs_i", "mvs_it", "weighted", "tbps_clip", "all", "separate mvs"))
    assert ("text_second" in absent) is not (name in ("mvs_t", "mvs_it", "ss_t", "ss_it", "all", "separate mvs"))
    assert ("strong_one" in absent) is not (name in ("ss_i", "ss_it", "tbps_clip", "all"))
    assert ("calm_image" in absent) is not (name in ("separate", "separate mvs"))
    assert ("calm_image_second" in absent) is not (name == "separate mvs")
    assert ("calm_text_second" in absent) is not (name == "separate mvs")
    assert ("mlm" in absent) is not (name in ("mlm", "mlm in context", "all"))


def test_micro_batches_see_the_same_dropout_masks_twice(tiny_model_folder: Path) -> None:
    bench = Bench(tiny_model_folder)
    settings = settings_of("n_itc")
    for layer in bench.clip.text_model.encoder.layers:
        layer.self_attn.dropout = 0.5
    bench.clip.train()
    bench.clip.set_attn_implementation("eager")
    views = bench._needed(bench.views, settings.losses)

    def text(part: int) -> torch.Tensor:
        with dropout_from(settings, 0, part, torch.device("cpu")):
            return encode(bench.clip, bench.heads, views, settings, calm=True, words=True).text

    assert torch.equal(text(0), text(0)) and not torch.equal(text(0), text(1))


def _worker(number: int, world: int, folder: str, rendezvous: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=number, world_size=world)
    bench = Bench(Path(folder))
    found = {(name, micro): bench.gradients(name, micro) for name in LOSSES for micro in (PAIRS // world, 1)}
    torch.save(found, f"{out}/{number}.pt")
    torch.save({name: bench.gradients(name, PAIRS // world, cut=True) for name in CUT}, f"{out}/cut-{number}.pt")
    torch.save({name: bench.gradients(name, 1) for name in SHARDED}, f"{out}/sharded-{number}.pt")
    if world == 4:
        torch.save({name: bench.gradients(name, 2) for name in LOCAL}, f"{out}/local-{number}.pt")
    if world == 2:
        torch.save({name: bench.gradients(name, 1) for name in LOCAL}, f"{out}/local-{number}.pt")
        bench32 = Bench(Path(folder), torch.float32)
        torch.save({name: bench32.gradients(name, 1) for name in LOSSES}, f"{out}/float32-{number}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def processes(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """A function from a number of processes to the folder with the gradients of each."""

    @cache
    def folder(world: int) -> Path:
        out = tmp_path_factory.mktemp("processes")
        mp.spawn(_worker, args=(world, str(tiny_model_folder), str(out / "rendezvous"), str(out)), nprocs=world)
        return out

    return folder


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_processes_together_have_the_gradient_of_the_whole_batch(
    bench: Bench, processes: Callable[[int], Path], world: int
) -> None:
    for number in range(world):
        for (name, micro), gradients in torch.load(processes(world) / f"{number}.pt", weights_only=True).items():
            same(bench.whole(name), gradients, f"{name} on process {number} of {world}, micro-batches of {micro}")


@pytest.mark.slow
def test_in_float32_two_processes_have_the_gradient_up_to_rounding(bench32: Bench, processes: Callable[[int], Path]) -> None:
    for number in range(2):
        for name, gradients in torch.load(processes(2) / f"float32-{number}.pt", weights_only=True).items():
            alike(bench32.whole(name), gradients, 1e-4, f"{name} on process {number}")


@pytest.mark.slow
@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("world", [2, 4])
def test_gradients_do_not_depend_on_the_longest_caption_of_a_process(
    bench: Bench, processes: Callable[[int], Path], world: int, name: str
) -> None:
    """Compares processes whose longest captions differ with one process that has all captions."""
    lengths = bench.views.text.argmax(dim=1)
    assert len({int(part.max()) for part in lengths.chunk(world)}) > 1
    wanted = bench.gradients(name, PAIRS, cut=True)
    for number in range(world):
        same(wanted, torch.load(processes(world) / f"cut-{number}.pt", weights_only=True)[name], f"{name} on process {number}")


def test_masked_padding_changes_nothing_and_visible_padding_does(bench: Bench) -> None:
    """Compares the losses of captions with little and with much padding."""
    losses = {name: settings_of(name).losses for name in CUT}
    views = bench._needed(bench.views, losses["mlm"])
    assert views.masked is not None and views.words is not None
    more = replace(
        views,
        masked=torch.nn.functional.pad(views.masked, (0, 5), value=int(views.text.max())),
        words=torch.nn.functional.pad(views.words, (0, 5), value=UNMASKED),
    )

    def loss(seen: Views, name: str) -> torch.Tensor:
        found = encode(bench.clip, bench.heads, seen, settings_of(name), calm=False, words=True).mlm
        assert found is not None
        return found

    torch.testing.assert_close(loss(more, "mlm"), loss(views, "mlm"), atol=1e-9, rtol=1e-9)
    assert abs(loss(more, "mlm in context") - loss(views, "mlm in context")) > 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", LOCAL)
def test_four_shards_of_one_process_are_four_processes_with_local_gradients(
    bench: Bench, processes: Callable[[int], Path], name: str
) -> None:
    """Also equal to two processes that imitate two devices each."""
    found = bench.gradients(f"{name} of four", PAIRS)
    for number in range(4):
        same(torch.load(processes(4) / f"local-{number}.pt", weights_only=True)[name], found, f"{name}, process {number} of 4")
    for world in (2, 4):
        for number in range(world):
            sharded = torch.load(processes(world) / f"sharded-{number}.pt", weights_only=True)[f"{name} of four"]
            same(found, sharded, f"{name} of four, process {number} of {world}")
    projection = "text_projection.weight"
    whole = bench.gradients(name, PAIRS)[projection]
    assert (found[projection] - whole).norm() > 0.01 * whole.norm()  # checks that shards change the gradient at all


@pytest.mark.parametrize("name", ["itc", "n_itc", "tbps_clip", "all"])
def test_with_global_gradients_shards_change_no_bit(bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = bench.gradients(name, PAIRS)
    monkeypatch.setitem(LOSSES, name, LOSSES[name] | {"shards": 4})
    sharded = bench.gradients(name, PAIRS)
    assert alone.keys() == sharded.keys() and all(torch.equal(sharded[key], gradient) for key, gradient in alone.items())


def test_shards_that_do_not_divide_the_batch_are_refused(bench: Bench) -> None:
    views = bench._needed(bench.views.part(slice(0, 6)), settings_of("clip of four").losses)
    features = encode(bench.clip, bench.heads, views, settings_of("clip of four"), calm=True, words=False)
    with pytest.raises(SettingsError, match=r"losses\.shards = 4 does not divide 6 pairs on 1 process"):
        objective(
            features, bench.labels("clip", slice(0, 6)), torch.tensor(14.0), 0.0, bench.heads, settings_of("clip of four").losses
        )


def test_shards_that_do_not_divide_among_the_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three processes cannot imitate four devices in equal parts; from four processes on, every process is one device."""
    settings = settings_of("clip of four").losses
    monkeypatch.setattr(the_shards, "world_size", lambda: 3)
    with pytest.raises(SettingsError, match=r"losses\.shards = 4 does not divide 12 pairs on 3 processes"):
        the_shards.shards_of(4, settings)
    for world, shards in ((2, 2), (4, 1), (5, 1)):
        monkeypatch.setattr(the_shards, "world_size", lambda world=world: world)
        assert len(the_shards.shards_of(4, settings)) == shards


def with_constant_columns(bench: Bench, name: str, world: int) -> dict[str, torch.Tensor]:
    """Gradient of the mean, over processes, of the loss between local rows and all columns, with the columns of others detached."""
    settings = settings_of(name)
    losses, ids, share, scale = settings.losses, bench.identities, PAIRS // world, bench.clip.logit_scale.exp()
    for module in (bench.clip, bench.heads):
        module.zero_grad()
    seen = encode(bench.clip, bench.heads, bench._needed(bench.views, losses), settings, calm=True, words=True)
    whole = torch.zeros((), dtype=torch.float64)
    for number in range(world):
        rows = slice(number * share, (number + 1) * share)
        mine = torch.zeros(PAIRS, 1, dtype=torch.bool)
        mine[rows] = True

        def columns(*views: torch.Tensor, mine: torch.Tensor = mine) -> tuple[torch.Tensor, ...]:
            return tuple(torch.where(mine, view, view.detach()) for view in views)

        image, text, every = seen.image[rows], seen.text[rows], columns(seen.image, seen.text)
        if losses.n_itc.labels == "pair":
            whole = whole + losses.n_itc.weight * n_itc(image, text, torch.eye(PAIRS)[rows], scale, ALPHA, gathered=every)
            continue
        targets = identity_targets(ids[rows], ids)
        whole = (
            whole + n_itc(image, text, targets, scale, ALPHA, gathered=every) + r_itc(image, text, targets, scale, gathered=every)
        )
        whole = (
            whole
            + 0.1 * c_itc(image, text, gathered=every)
            + 0.2 * sdm(image, text, ids, 5.0, gathered=every, row_start=rows.start)
        )
        whole = whole + tal(image, text, ids, gathered=every, row_start=rows.start)
        one, two = bench.heads.image_projection(seen.strong_one), bench.heads.image_projection(seen.strong_two)
        whole = whole + 0.4 * nt_xent(one[rows], two[rows], gathered=columns(one, two), row_start=rows.start)
    (whole / world).backward()
    parameters = [*bench.clip.named_parameters(), *bench.heads.named_parameters()]
    return {"loss": (whole / world).detach()} | {name: p.grad.clone() for name, p in parameters if p.grad is not None}


@pytest.mark.slow
@pytest.mark.parametrize("name", LOCAL)
def test_without_global_gradients_the_columns_of_other_processes_are_constants(
    bench: Bench, processes: Callable[[int], Path], name: str
) -> None:
    wanted = with_constant_columns(bench, name, 2)
    for number in range(2):
        found = torch.load(processes(2) / f"local-{number}.pt", weights_only=True)[name]
        same(wanted, found, f"{name} on process {number}")
    projection = "text_projection.weight"
    whole = bench.gradients(name, PAIRS)[projection]
    assert (wanted[projection] - whole).norm() > 0.01 * whole.norm()  # checks that constant columns change the gradient at all
