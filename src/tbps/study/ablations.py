"""The paper's tables, and additional ones, as lists of named settings; `tbps study run NAME` runs one table.

Each row lists the settings that it changes in the recipe or row that it derives from. Rows have the names of the paper's tables
(`paper_tables.yaml`); a test checks that none is missing.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tbps.errors import SettingsError
from tbps.study.recipes import clip, clip_adapter, clip_star, coop, distilled, irra, simplified_tbps_clip, tbps_clip
from tbps.study.work.compressing import Compressing
from tbps.study.work.cost import Costing
from tbps.study.work.probing import Probing
from tbps.study.work.training import Training
from tbps.study.work.work import Work
from tbps.training.settings import TrainSettings

Changes = Mapping[str, Any]
OURS = "ours, beyond the paper"
"""`AblationTable.source` of tables that the paper does not have."""


@dataclass(frozen=True, slots=True)
class AblationRow:
    """A named experiment of a table.

    `base`: name of the row to compare with; None for a base row. `start`: work to run first with the same seed, whose best model
    this row starts from; None for `work.before` or the study's start model. `note`: remark for the report.
    """

    name: str
    work: Work
    base: str | None
    start: Work | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class AblationTable:
    """Rows of one table. `source`: table or section of the paper with the published numbers, or `OURS`."""

    name: str
    title: str
    source: str
    rows: tuple[AblationRow, ...]

    def row(self, name: str) -> AblationRow:
        """Find a row by name. Raises SettingsError with the known names."""
        for row in self.rows:
            if row.name == name:
                return row
        raise SettingsError(f"table {self.name} has no row {name!r}; there are {', '.join(row.name for row in self.rows)}")


def tricks() -> AblationTable:
    """Each training trick alone, and all four (CLIP*)."""
    plain = clip()
    rows = _derived(
        "clip",
        plain,
        {
            "clip+globalgrad": {"losses.global_gradients": True},
            "clip+dropout": {"text_attention_dropout": 0.05},
            "clip+lock_bottom": {"lock.patch_projection": True},
            "clip+soft_label": {"losses.n_itc.soft_label": 0.5},
        },
    )
    shards = "clip takes the columns of the other three of four shards as constants, as each of the paper's four devices does"
    rows = tuple(AblationRow(r.name, r.work, r.base, note=shards if r.name == "clip+globalgrad" else "") for r in rows)
    all_four = AblationRow("clip*", Training(train=clip_star()), "clip")
    return AblationTable("tricks", "training tricks", "table 1", (*rows, all_four))


IMAGE_METHODS = {
    "random_resized_crop": "crop",
    "random_erasing": "erase",
    "random_grayscale": "grayscale",
    "gaussian_blur": "blur",
    "color_jitter_bcs": "jitter",
    "color_jitter_hue": "hue",
    "random_horizontal_flip": "flip",
    "random_vertical_flip": "vertical_flip",
    "random_rotation": "rotation",
    "stacking_together": "stacking",
    "auto_augment": "auto_augment",
    "rand_augment": "rand_augment",
    "trivial_augment": "trivial_augment",
    "augmentation_pool": "pool",
}


def image_augmentation() -> AblationTable:
    """Each image augmentation alone and every way to combine them, on CLIP*."""
    rows = {name: _image(method) for name, method in IMAGE_METHODS.items()}
    return AblationTable("image-augmentation", "image augmentation", "table 2", _derived("clip*", clip_star(), rows))


def image_augmentation_strength() -> AblationTable:
    """Several strengths of single image augmentations, on CLIP*."""
    rows = {
        **{
            f"random_resized_crop.min_scale={low}": _image("crop", {"image_augmentation.crop_scale": (low, 1.0)})
            for low in (0.3, 0.6, 0.9)
        },
        **{
            f"random_erasing.scale={low:.2f}-{high:.2f}": _image("erase", {"image_augmentation.erase_area": (low, high)})
            for low, high in ((0.02, 0.1), (0.1, 0.2), (0.2, 0.3))
        },
        **{f"gaussian_blur.kernel={size}": _image("blur", {"image_augmentation.blur_kernel": size}) for size in (3, 7, 11)},
        **{f"color_jitter.bcs={share}": _image("jitter", _jitter(share)) for share in (0.1, 0.2, 0.4)},
        **{f"color_jitter.hue={share}": _image("hue", {"image_augmentation.hue": share}) for share in (0.1, 0.2, 0.4)},
        **{
            f"random_rotation.degrees={angle}": _image("rotation", {"image_augmentation.rotation_degrees": angle})
            for angle in (7.5, 15, 30)
        },
    }
    return AblationTable(
        "image-augmentation-strength", "strength of image augmentation", "appendix", _derived("clip*", clip_star(), rows)
    )


TEXT_METHODS = {
    "back_translation": "back_translation",
    "synonym_replacement": "synonym_replacement",
    "random_insertion": "random_insertion",
    "random_swap": "random_swap",
    "random_deletion": "random_deletion",
    "eda": "eda",
    "stacking_together": "stacking",
}
TEXT_STRENGTHS = {
    "back_translation": ("paraphrase_probability",),
    "synonym_replacement": ("edit_share",),
    "random_insertion": ("edit_share",),
    "random_swap": ("edit_share",),
    "random_deletion": ("deletion_probability",),
    "eda": ("edit_share", "deletion_probability"),
}


def text_augmentation() -> AblationTable:
    """Each text augmentation alone, EDA, and back translation with random deletion, on CLIP*."""
    rows = {name: _text(method) for name, method in TEXT_METHODS.items()}
    return AblationTable("text-augmentation", "text augmentation", "table 3", _derived("clip*", clip_star(), rows))


def text_augmentation_strength() -> AblationTable:
    """Several strengths of the text augmentations, on CLIP*."""
    rows = {
        f"{method}={strength}": _text(method, {f"text_augmentation.{setting}": strength for setting in settings})
        for method, settings in TEXT_STRENGTHS.items()
        for strength in (0.05, 0.1, 0.2)
    }
    return AblationTable(
        "text-augmentation-strength", "strength of text augmentation", "appendix", _derived("clip*", clip_star(), rows)
    )


def augmentation_combined() -> AblationTable:
    """The pool of image augmentations, the stacked text augmentations, and both, on CLIP*."""
    rows = {"image": _image("pool"), "text": _text("stacking"), "image+text": _image("pool") | _text("stacking")}
    return AblationTable("augmentation-combined", "image and text augmentation", "table 4", _derived("clip*", clip_star(), rows))


LOSSES: Mapping[str, Changes] = {
    "n_itc": {"losses.n_itc.labels": "identity"},
    "ss_i": {"losses.ss.weight": 0.4, "losses.ss.views": "image"},
    "ss_t": {"losses.ss.weight": 0.4, "losses.ss.views": "text"},
    "ss_it": {"losses.ss.weight": 0.4, "losses.ss.views": "both"},
    "mvs_i": {"losses.mvs.views": "image"},
    "mvs_t": {"losses.mvs.views": "text"},
    "mvs_it": {"losses.mvs.views": "both"},
    "r_itc": {"losses.r_itc.weight": 1.0},
    "c_itc": {"losses.c_itc.weight": 0.1},
}


def losses() -> AblationTable:
    """Each loss added to augmented CLIP* (N-ITC replaces ITC), and all losses of TBPS-CLIP."""
    augmented = clip_star().override(_image("pool") | _text("stacking"))
    rows = _derived("clip*+aug", augmented, LOSSES)
    return AblationTable("losses", "losses", "table 5", (*rows, AblationRow("tbps_clip", Training(train=tbps_clip()), "clip*+aug")))


def pair_augmentation() -> AblationTable:
    """MixGen and ConcatGen, on CLIP*."""
    rows = {"mixgen": {"pair_augmentation.method": "mixgen"}, "concatgen": {"pair_augmentation.method": "concatgen"}}
    return AblationTable(
        "pair-augmentation", "pair augmentation", "left out of the final paper", _derived("clip*", clip_star(), rows)
    )


def benchmarks() -> AblationTable:
    """CLIP, TBPS-CLIP and the simplified model; run it once for every data set and backbone."""
    rows = (
        AblationRow("clip", Training(train=clip()), None),
        AblationRow("tbps_clip", Training(train=tbps_clip()), "clip"),
        AblationRow("simplified_tbps_clip", Training(train=simplified_tbps_clip()), "clip"),
    )
    return AblationTable("benchmarks", "comparison with others", "tables 6 to 8", rows)


def cost() -> AblationTable:
    """Measured cost of training and test, for every recipe."""
    recipes = {
        "clip": clip(),
        "clip_star": clip_star(),
        "simplified_tbps_clip": simplified_tbps_clip(),
        "tbps_clip": tbps_clip(),
        "irra": irra(),
    }
    rows = tuple(AblationRow(name, Costing(train=train), "clip" if name != "clip" else None) for name, train in recipes.items())
    return AblationTable("cost", "cost of training and test", "table 9", rows)


def irra_on_top() -> AblationTable:
    """IRRA, started from CLIP, from TBPS-CLIP and from the simplified model."""
    on_top = Training(train=irra())
    rows = (
        AblationRow("clip", on_top, None),
        AblationRow("tbps_clip", on_top, "clip", Training(train=tbps_clip()), "starts from TBPS-CLIP, trained first"),
        AblationRow(
            "simplified_tbps_clip", on_top, "clip", Training(train=simplified_tbps_clip()), "starts from the simplified model"
        ),
    )
    return AblationTable("irra", "IRRA on top", "tables 10 and 12", rows)


FEW_SHOT = (0.01, 0.05, 0.1)


def few_shot() -> AblationTable:
    """Training on nested subsets of 1, 5 and 10 % of the identities; each method is compared with CLIP on the same share."""
    recipes = {
        "clip": clip(),
        "coop": coop(),
        "clip_adapter": clip_adapter(),
        "tbps_clip": tbps_clip(),
        "simplified_tbps_clip": simplified_tbps_clip(),
    }
    rows = tuple(
        AblationRow(
            f"{100 * share:g}%/{name}",
            Training(train=train, identities=share),
            base=None if name == "clip" else f"{100 * share:g}%/clip",
        )
        for share in FEW_SHOT
        for name, train in recipes.items()
    )
    return AblationTable("few-shot", "few shot", "tables 11 and 13", rows)


def contribution() -> AblationTable:
    """Contributions C1 and C2 of every module of the trained models to Rank-1 on the val split."""
    models = {"tbps_clip": tbps_clip(), "simplified_tbps_clip": simplified_tbps_clip()}
    rows = tuple(AblationRow(name, Probing(train=train), None) for name, train in models.items())
    return AblationTable("contribution", "contribution of every module", "appendix, figures", rows)


def compression() -> AblationTable:
    """Models retrained with the one to five least contributing text layers either frozen or dropped."""

    def derive() -> Iterator[AblationRow]:
        for name, train in {"tbps_clip": tbps_clip(), "simplified_tbps_clip": simplified_tbps_clip()}.items():
            yield AblationRow(f"{name}/0", Training(train=train), None)
            for how in ("frozen", "dropped"):
                for layers in range(1, 6):
                    note = f"text layers with the smallest C1 + C2 {how}: {layers}"
                    work = Compressing(train=train, layers=layers, how=how)
                    yield AblationRow(f"{name}/{layers} {how}", work, f"{name}/0", note=note)

    return AblationTable("compression", "text layers frozen or dropped", "appendix", tuple(derive()))


STUDENTS: Mapping[str, Changes] = {
    "depth 3/4": {"prune.depth": 0.75},
    "depth 1/2": {"prune.depth": 0.5},
    "width 1/2": {"prune.depth": 1.0, "prune.width": 0.5},
    "depth 1/2 width 1/2": {"prune.depth": 0.5, "prune.width": 0.5},
}
TAUGHT = " taught"


def distillation() -> AblationTable:
    """Smaller models, pruned from the simplified one and trained without and with the unpruned model as teacher."""
    full = Costing(train=simplified_tbps_clip())

    def derive() -> Iterator[AblationRow]:
        yield AblationRow("full", full, None)
        for size, cut in STUDENTS.items():
            taught = distilled().override(cut)
            alone = taught.override({"losses.distill.weight": 0})
            yield AblationRow(size, Costing(train=alone), "full", full)
            note = f"compared with {size}, the same without a teacher"
            yield AblationRow(f"{size}{TAUGHT}", Costing(train=taught), size, full, note)

    return AblationTable("distillation", "smaller models taught by the whole one", OURS, tuple(derive()))


TABLES: Mapping[str, Callable[[], AblationTable]] = {
    "tricks": tricks,
    "image-augmentation": image_augmentation,
    "image-augmentation-strength": image_augmentation_strength,
    "text-augmentation": text_augmentation,
    "text-augmentation-strength": text_augmentation_strength,
    "augmentation-combined": augmentation_combined,
    "losses": losses,
    "pair-augmentation": pair_augmentation,
    "benchmarks": benchmarks,
    "cost": cost,
    "irra": irra_on_top,
    "few-shot": few_shot,
    "contribution": contribution,
    "compression": compression,
    "distillation": distillation,
}

LITERATURE = (("benchmarks", "rasa"), ("benchmarks", "irra"), ("cost", "rasa"))
"""(table, row) of other methods, which are not run; the report prints their published numbers."""


def table(name: str) -> AblationTable:
    """Find a table by name. Raises SettingsError with the known names."""
    if name not in TABLES:
        raise SettingsError(f"unknown table {name!r}; there are {', '.join(TABLES)}")
    return TABLES[name]()


def _derived(base: str, settings: TrainSettings, rows: Mapping[str, Changes]) -> tuple[AblationRow, ...]:
    """Make a base row, and rows that change some of its settings."""

    def derive() -> Iterator[AblationRow]:
        yield AblationRow(base, Training(train=settings), None)
        for name, changes in rows.items():
            yield AblationRow(name, Training(train=settings.override(changes)), base)

    return tuple(derive())


def _image(method: str, changes: Changes | None = None) -> dict[str, Any]:
    return {"image_augmentation.enabled": True, "image_augmentation.method": method, **(changes or {})}


def _text(method: str, changes: Changes | None = None) -> dict[str, Any]:
    return {"text_augmentation.enabled": True, "text_augmentation.method": method, **(changes or {})}


def _jitter(strength: float) -> dict[str, Any]:
    return {f"image_augmentation.{name}": strength for name in ("brightness", "contrast", "saturation")}
