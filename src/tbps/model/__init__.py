"""CLIP models: towers, model folders, training heads, and conversion of checkpoints of other projects.

Other packages of `tbps` import from here.
"""

from typing import TYPE_CHECKING

from tbps.faces import lazy

if TYPE_CHECKING:
    from tbps.model.bundle import PersonModel, load
    from tbps.model.clip import (
        ModelShape,
        TowerShape,
        bottom_parameters,
        build,
        image_features,
        set_text_attention_dropout,
        text_features_in_parts,
    )
    from tbps.model.foreign.formats import Conversion, ConvertSettings, convert
    from tbps.model.heads import ProjectionHead
    from tbps.model.text_reader import TextReader
    from tbps.model.tokens import END, START, count_tokens, train_tokenizer
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "tbps.model.bundle": ["PersonModel", "load"],
            "tbps.model.clip": [
                "ModelShape",
                "TowerShape",
                "bottom_parameters",
                "build",
                "image_features",
                "set_text_attention_dropout",
                "text_features_in_parts",
            ],
            "tbps.model.foreign.formats": ["Conversion", "ConvertSettings", "convert"],
            "tbps.model.heads": ["ProjectionHead"],
            "tbps.model.text_reader": ["TextReader"],
            "tbps.model.tokens": ["END", "START", "count_tokens", "train_tokenizer"],
        },
    )

__all__ = [
    "END",
    "START",
    "Conversion",
    "ConvertSettings",
    "ModelShape",
    "PersonModel",
    "ProjectionHead",
    "TextReader",
    "TowerShape",
    "bottom_parameters",
    "build",
    "convert",
    "count_tokens",
    "image_features",
    "load",
    "set_text_attention_dropout",
    "text_features_in_parts",
    "train_tokenizer",
]
