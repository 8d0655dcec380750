"""Consensus division: losses against loops, the mixture against a plain EM, labels of pairs with exchanged captions."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import precision_score, recall_score

from tbps.data.cache import ImageCache
from tbps.data.embedding import identities
from tbps.data.readers.folder import read
from tbps.data.records import PersonDataset
from tbps.errors import MissingDependencyError, SettingsError
from tbps.model.bundle import load
from tbps.study.recipes import simplified_tbps_clip
from tbps.training.division import Division, clean_probability, consensus, embed_pairs, losses_in_groups, pair_losses
from tbps.training.log import read_log
from tbps.training.observer import StepReport
from tbps.training.start import start_model
from tbps.training.state import EpochResult
from tbps.training.trainer import train

COLOURS = {
    "red": (200, 30, 30),
    "blue": (30, 30, 200),
    "green": (30, 160, 40),
    "yellow": (230, 220, 40),
    "black": (20, 20, 20),
    "white": (235, 235, 235),
}


def stream(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_pair_losses_equal_their_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    image, text = torch.randn(2, 6, 5, generator=generator, dtype=torch.float64)
    ids, tau = [0, 1, 1, 2, 0, 3], 0.1
    s = torch.nn.functional.normalize(image, dim=1) @ torch.nn.functional.normalize(text, dim=1).T
    found = pair_losses(image, text, torch.tensor(ids), tau)
    for i in range(6):
        others = [j for j in range(6) if ids[j] != ids[i]]
        for column, row in enumerate((s[i], s[:, i])):
            wanted = tau * math.log(sum(math.exp(float(row[j]) / tau) for j in others)) - float(row[i])
            assert float(found[i, column]) == pytest.approx(wanted, abs=1e-12)


def test_a_pair_without_other_identities_has_a_finite_loss() -> None:
    rows = torch.eye(3)
    torch.testing.assert_close(pair_losses(rows, rows, torch.zeros(3, dtype=torch.int64), 0.1), torch.full((3, 2), -2.0))


def test_every_pair_has_one_loss_from_a_group_of_at_least_the_given_size() -> None:
    """17 pairs in groups of 5. All embeddings are equal, so the loss of a pair reveals the size of its group."""
    same = torch.nn.functional.normalize(torch.ones(17, 4), dim=1)
    losses = losses_in_groups(same, same, torch.arange(17), 1.0, 5, stream())
    others = np.exp(losses)  # log(others) + 1 - 1
    assert np.allclose(others[:, 0], others[:, 1], atol=1e-5)
    sizes = np.sort(others[:, 0].round().astype(int) + 1)
    assert sizes.tolist() == [5] * 5 + [6] * 12


def em(losses: np.ndarray) -> np.ndarray:
    """Posterior of the lower of two Gaussians by EM until convergence, started from a split at the middle of the range."""
    share = (losses < (losses.min() + losses.max()) / 2).astype(float)
    for _ in range(2000):
        density = []
        for weights in (share, 1 - share):
            mean = (weights * losses).sum() / weights.sum()
            variance = (weights * (losses - mean) ** 2).sum() / weights.sum() + 1e-6
            density.append(weights.mean() * np.exp(-((losses - mean) ** 2) / (2 * variance)) / math.sqrt(variance))
        share = density[0] / (density[0] + density[1])
    return share


@pytest.mark.parametrize("noisy", [0.1, 0.3, 0.5])
def test_the_mixture_equals_that_of_a_plain_em(noisy: float) -> None:
    rng = stream(3)
    many = int(2000 * noisy)
    losses = np.concatenate([rng.normal(-0.3, 0.08, 2000 - many), rng.normal(0.25, 0.15, many)])
    found = clean_probability(losses, seed=0)
    scaled = (losses - losses.min()) / (losses.max() - losses.min())
    # scikit-learn stops when a step gains less than 1e-4 of log-likelihood; `em` runs until convergence
    assert np.abs(found - em(scaled)).max() < 0.05
    assert ((found > 0.5) == (em(scaled) > 0.5)).mean() > 0.998
    assert np.array_equal(clean_probability(5 * losses + 3, seed=0) > 0.5, found > 0.5)


def test_equal_losses_are_clean_and_nan_is_an_error() -> None:
    assert clean_probability(np.full(9, 0.4), seed=0).tolist() == [1] * 9
    with pytest.raises(SettingsError, match=r"schedule\.peak_rate"):
        clean_probability(np.array([0.1, np.nan, 0.3]), seed=0)


def two_opinions() -> np.ndarray:
    """400 pairs that both opinions call clean, 300 that both call noisy, 200 disputed."""
    rng = stream(1)
    high = np.repeat([[0, 0], [1, 1], [0, 1], [1, 0]], [400, 300, 100, 100], axis=0)
    return high + rng.normal(0, 0.05, high.shape)


def test_agreed_labels_are_kept_and_disputed_ones_drawn() -> None:
    found = consensus(two_opinions(), 0.5, stream())
    assert (found.clean, found.noisy, found.disputed) == (400, 300, 200)
    assert found.believed[:400].all() and not found.believed[400:700].any()
    assert abs(found.believed[700:].sum() - 100) < 4 * math.sqrt(200 / 4)
    again, other = consensus(two_opinions(), 0.5, stream()), consensus(two_opinions(), 0.5, stream(1))
    assert np.array_equal(again.believed, found.believed) and not np.array_equal(other.believed, found.believed)


def test_a_higher_threshold_labels_fewer_pairs_clean() -> None:
    rng = stream(2)
    overlapping = np.concatenate([rng.normal(0, 1, (300, 2)), rng.normal(2.5, 1, (300, 2))])
    cleans = [consensus(overlapping, threshold, stream()).clean for threshold in (0.2, 0.5, 0.9)]
    assert cleans[0] > cleans[1] > cleans[2]


def exchanged(folder: Path) -> np.ndarray:
    """Writes 36 people with 8 two-coloured training images each, and exchanges a quarter of the captions; returns which."""
    rng, lines = stream(0), []
    people = [(top, bottom) for top in COLOURS for bottom in COLOURS]
    for split, pictures in (("train", 8), ("val", 1)):
        for identity, (top, bottom) in enumerate(people):
            for number in range(pictures):
                pixels = np.zeros((40, 20, 3))
                pixels[:20], pixels[20:] = COLOURS[top], COLOURS[bottom]
                name = f"{split}-{identity}-{number}.png"
                Image.fromarray(np.clip(pixels + rng.normal(0, 10, pixels.shape), 0, 255).astype(np.uint8)).save(folder / name)
                caption = f"a person with a {top} top and {bottom} trousers"
                lines.append({"file_name": name, "caption": caption, "split": split, "identity": f"{split}{identity}"})
    train = [line for line in lines if line["split"] == "train"]
    right = [line["caption"] for line in train]
    rows = rng.permutation(len(train))[: len(train) // 4]
    for row, other in zip(rows, np.roll(rows, 1), strict=True):
        train[row]["caption"] = right[other]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return np.array([line["caption"] != caption for line, caption in zip(train, right, strict=True)])


class Judging:
    """Records the progress of the divisions."""

    def __init__(self) -> None:
        self.progress: list[tuple[int, int]] = []

    def on_cache(self, done: int, total: int) -> None:
        pass

    def on_division(self, done: int, total: int) -> None:
        self.progress.append((done, total))

    def on_step(self, report: StepReport) -> None:
        pass

    def on_epoch(self, result: EpochResult) -> None:
        pass


def test_finds_exchanged_captions_after_a_short_training(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    wrong, data = exchanged(tmp_path / "data"), read(tmp_path / "data")
    tower = {"width": 64, "layers": 2, "heads": 2}
    settings = simplified_tbps_clip().override(
        {
            "shape": {"image": tower, "text": tower, "image_size": 32, "patch": 8, "vocabulary": 600, "embedding": 32},
            "batch_size": 32,
            "lock.patch_projection": False,
            "image_augmentation.enabled": False,
            "text_augmentation.enabled": False,
            "losses.r_itc.weight": 0,
            "losses.n_itc.soft_label": 0,
            "optimizer.matrices": "muon",
            "schedule": {"epochs": 5, "warmup_epochs": 1, "initial_rate": 1e-4, "peak_rate": 2e-3},
            "division": {"enabled": True, "warmup_epochs": 3},
        }
    )
    watch = Judging()
    train(settings, start_model(settings, data, None, "cpu"), data, tmp_path / "run", watch)
    newest = sorted((tmp_path / "run" / "checkpoints").glob("*.safetensors"))[-1]
    noisy = ~load_file(newest)["believed"].numpy()
    # Chance is a precision of 0.25, the share of wrong captions.
    assert precision_score(wrong, noisy) > 0.8 and recall_score(wrong, noisy) > 0.6
    records = [record for record in read_log(tmp_path / "run" / "log.jsonl") if record["kind"] == "division"]
    assert [record["step"] for record in records] == [3 * 9 + 1, 4 * 9 + 1]  # none before the fourth epoch
    assert all(record["clean"] + record["noisy"] + record["disputed"] == 288 for record in records)
    assert records[-1]["believed"] == 288 - noisy.sum()
    first, second = watch.progress[: len(watch.progress) // 2], watch.progress[len(watch.progress) // 2 :]
    assert first == second == sorted(first) and first[-1] == (2 * 288, 2 * 288)


def judged(model_folder: Path, data: PersonDataset, cache: Path) -> tuple[np.ndarray, Division]:
    model = load(model_folder)
    images = ImageCache.open(data, model.spec, cache).images
    image, text = embed_pairs(model, data, images, lambda done, total: None)
    losses = losses_in_groups(image, text, torch.from_numpy(identities(data)[0]), 0.015, 16, stream())
    return losses, consensus(losses, 0.5, stream())


def _worker(number: int, model: Path, data: Path, cache: Path, out: str, rendezvous: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=number, world_size=2)
    losses, division = judged(model, many(data), cache)
    np.savez(f"{out}/{number}.npz", losses=losses, believed=division.believed)
    trained(model, data, Path(out) / "two")
    dist.destroy_process_group()


def many(root: Path) -> PersonDataset:
    """Three copies of the flags, 432 pairs, enough for both processes to get chunks of images and of captions."""
    flags = read(root)
    return PersonDataset(flags.name, flags.root, flags.images * 3)


def trained(model: Path, root: Path, out: Path) -> None:
    """Trains three epochs, two with a division, without augmentation and dropout, which processes draw independently.

    See `test_torchrun` for the value of eps.
    """
    changes = {"batch_size": 16, "image_augmentation.enabled": False, "text_attention_dropout": 0}
    changes |= {"schedule.epochs": 3, "schedule.peak_rate": 1e-3, "optimizer.eps": 0.01}
    settings = simplified_tbps_clip().override(changes | {"losses.tal.weight": 1, "division.enabled": True})
    data = read(root)
    train(settings, start_model(settings, data, model, "cpu"), data, out, Judging())


def outcome(folder: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, float | str]]]:
    newest = sorted((folder / "checkpoints").glob("*.safetensors"))[-1]
    return load_file(newest), [record for record in read_log(folder / "log.jsonl") if record["kind"] == "division"]


@pytest.mark.slow
def test_two_processes_divide_and_learn_as_one(flags: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    losses, division = judged(tiny_model_folder, many(flags), tmp_path / "cache")
    trained(tiny_model_folder, flags, tmp_path / "one")
    torch.set_num_threads(threads)
    arguments = (tiny_model_folder, flags, tmp_path / "cache", str(tmp_path), str(tmp_path / "rendezvous"))
    mp.spawn(_worker, args=arguments, nprocs=2)
    for number in range(2):
        theirs = np.load(tmp_path / f"{number}.npz")
        assert np.array_equal(theirs["losses"], losses) and np.array_equal(theirs["believed"], division.believed)
    (one, log), (two, other_log) = (outcome(tmp_path / name) for name in ("one", "two"))
    assert log == other_log and len(log) == 2 and torch.equal(one.pop("believed"), two.pop("believed"))
    for name, tensor in one.items():
        # float32 sums are added in another order in every update
        torch.testing.assert_close(two[name], tensor, atol=1e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("loss", ["c_itc", "id", "mlm"])
def test_losses_that_ignore_labels_are_refused(loss: str) -> None:
    with pytest.raises(SettingsError, match=rf"losses\.{loss}\.weight=0"):
        simplified_tbps_clip().override({"division.enabled": True, f"losses.{loss}.weight": 0.1})


def test_mixed_pairs_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"pair_augmentation\.method"):
        simplified_tbps_clip().override({"division.enabled": True, "pair_augmentation.method": "mixgen"})


def test_a_missing_package_is_named_before_training(
    flags: Path, tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.mixture", None)
    settings = simplified_tbps_clip().override({"batch_size": 16, "division.enabled": True})
    data = read(flags)
    with pytest.raises(MissingDependencyError, match=r"pip install -e '\.\[robust\]'"):
        train(settings, start_model(settings, data, tiny_model_folder, "cpu"), data, tmp_path / "run", Judging())
