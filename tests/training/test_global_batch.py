"""The gradient of the global batch is the same from one process, from micro-batches, from two and four processes, and from both.

Every loss with the tiny model in float64, where the ways differ by the order of sums only.
"""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tbps.distributed import average, rank, total, world_size
from tbps.losses.classification import UNMASKED, mask_tokens
from tbps.model.bundle import load
from tbps.model.cross_modal import CrossModalEncoder
from tbps.model.heads import Heads, IdentityClassifier, ProjectionHead
from tbps.model.tokens import tokenise
from tbps.study.recipes import simplified_tbps_clip
from tbps.training.encode import Views, dropout_from, encode
from tbps.training.gradient_cache import backward
from tbps.training.objective import Features, Labels, Losses, LossSettings, objective
from tbps.training.settings import TrainSettings

PAIRS, ALPHA = 8, 0.3
OFF = {"n_itc.weight": 0, "r_itc.weight": 0}
LOSSES: dict[str, dict[str, object]] = {
    "itc": {"r_itc.weight": 0, "n_itc.labels": "pair"},
    "n_itc": {"r_itc.weight": 0},
    "separate": {"r_itc.weight": 0, "n_itc.soft_pass": "separate"},
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
    "tbps_clip": {"ss.weight": 0.4, "mvs.views": "image", "c_itc.weight": 0.1},
    "all": {"ss.weight": 0.4, "ss.views": "both", "mvs.views": "both", "c_itc.weight": 0.1}
    | {"sdm.weight": 0.2, "sdm.scale": 5, "id.weight": 0.3, "mlm.weight": 0.7},
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


def settings_of(name: str) -> TrainSettings:
    losses = LossSettings().override(LOSSES[name])
    return simplified_tbps_clip().override({"losses": losses.model_dump(), "text_attention_dropout": 0, "text_parts": 2})


class Bench:
    """The tiny model with all heads, a batch of all views, and the gradients that a way of computing them leaves."""

    def __init__(self, folder: Path) -> None:
        model = load(folder)
        generator = torch.Generator().manual_seed(0)
        torch.manual_seed(1)
        self.clip = model.clip.double()
        vocabulary = self.clip.config.text_config.vocab_size
        self.heads = Heads(
            ProjectionHead(model.dim, 8),
            ProjectionHead(model.dim, 8),
            IdentityClassifier(model.dim, 6),
            CrossModalEncoder(model.dim, vocabulary, layers=1),
        ).double()
        pixels = [torch.randn(PAIRS, 3, 32, 32, generator=generator, dtype=torch.float64) for _ in range(4)]
        tokens, second = (tokenise(model.tokenizer, texts, model.context_length) for texts in (CAPTIONS, CAPTIONS[::-1]))
        masked, words = mask_tokens(tokens, vocabulary - 3, vocabulary - 3, 0.4, generator)
        self.views = Views(pixels[0], tokens, pixels[1], second, pixels[2], pixels[3], masked, words)
        self.identities = torch.tensor([3, 7, 7, 1, 0, 3, 9, 4])

    def gradients(self, name: str, micro: int) -> dict[str, torch.Tensor]:
        settings = settings_of(name)
        losses, share = settings.losses, PAIRS // world_size()
        mine = slice(rank() * share, (rank() + 1) * share)
        views = self._needed(self.views.part(mine), losses)
        labels = Labels(self.identities[mine], self.identities.unique())
        for module in (self.clip, self.heads):
            module.zero_grad()

        def encode_part(part: int, *, calm: bool, words: bool) -> Features:
            with dropout_from(settings, 0, part, torch.device("cpu")):
                return encode(
                    self.clip, self.heads, views.part(slice(part * micro, (part + 1) * micro)), settings, calm=calm, words=words
                )

        def loss(features: Features) -> Losses:
            return objective(features, labels, self.clip.logit_scale.exp(), ALPHA, self.heads, losses)

        found = backward(encode_part, -(-share // micro), loss, losses.mlm.weight, world_size())
        parameters = [
            (name, p) for module in (self.clip, self.heads) for name, p in module.named_parameters() if p.grad is not None
        ]
        average([p.grad for _, p in parameters if p.grad is not None])
        mean = total(found.total.detach().clone()) / world_size()
        return {"loss": mean} | {name: p.grad.clone() for name, p in parameters if p.grad is not None}

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
        # 1e-9: float64 sums in another order; the gradients are of the order of 1
        torch.testing.assert_close(
            other[name], gradient, atol=1e-9, rtol=1e-7, msg=lambda text, name=name: f"{what} {name}: {text}"
        )


@pytest.fixture(scope="module")
def bench(tiny_model_folder: Path) -> Bench:
    return Bench(tiny_model_folder)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("micro", [1, 3, 4])
def test_micro_batches_have_the_gradient_of_the_whole_batch(bench: Bench, name: str, micro: int) -> None:
    whole = bench.gradients(name, PAIRS)
    assert any(bool(gradient.abs().max() > 0) for key, gradient in whole.items() if key != "loss")
    same(whole, bench.gradients(name, micro), f"{name} in micro-batches of {micro}")


@pytest.mark.parametrize("name", LOSSES)
def test_only_the_views_of_losses_that_are_on_are_encoded(bench: Bench, name: str) -> None:
    losses = settings_of(name).losses
    views = bench._needed(bench.views, losses)
    features = encode(bench.clip, bench.heads, views, settings_of(name), calm=True, words=True)
    absent = {key for key in Features.__slots__ if getattr(features, key) is None}
    assert ("image_second" in absent) is not (name in ("mvs_i", "mvs_it", "tbps_clip", "all"))
    assert ("text_second" in absent) is not (name in ("mvs_t", "mvs_it", "ss_t", "ss_it", "all"))
    assert ("strong_one" in absent) is not (name in ("ss_i", "ss_it", "tbps_clip", "all"))
    assert ("calm_image" in absent) is not (name == "separate")
    assert ("mlm" in absent) is not (name in ("mlm", "all"))


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
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_processes_together_have_the_gradient_of_the_whole_batch(
    bench: Bench, tiny_model_folder: Path, world: int, tmp_path: Path
) -> None:
    mp.spawn(_worker, args=(world, str(tiny_model_folder), str(tmp_path / "rendezvous"), str(tmp_path)), nprocs=world)
    for number in range(world):
        for (name, micro), gradients in torch.load(tmp_path / f"{number}.pt", weights_only=True).items():
            same(bench.gradients(name, PAIRS), gradients, f"{name} on process {number} of {world}, micro-batches of {micro}")
