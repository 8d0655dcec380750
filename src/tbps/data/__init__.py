"""Data sets for training and evaluation: reading, caching, augmentation, batching. Other packages import from here."""

from typing import TYPE_CHECKING

from tbps.faces import lazy

if TYPE_CHECKING:
    from tbps.data.augment.back_translation import Journal, MarianTranslator, TrainFile, back_translate, read_train_file
    from tbps.data.augment.image import ImageAugmentation, augment_images
    from tbps.data.augment.text import augment_caption
    from tbps.data.augment.views import ViewAugmentation, simclr_view_of
    from tbps.data.batches import Batches, epoch_batches
    from tbps.data.cache import ImageCache, cache_folder, cached_files, erase_cache, near
    from tbps.data.embedding import decoded, describe_source, embed_split, identities
    from tbps.data.mannequins.ceiling import ceiling_scores
    from tbps.data.mannequins.drawing import draw_person, encode_picture
    from tbps.data.mannequins.population import population, sample_view
    from tbps.data.mannequins.writing import SplitSize, write_mannequins
    from tbps.data.proportions import Pictures
    from tbps.data.readers.annotations import CONTEXT_WORDS, long_captions
    from tbps.data.readers.catalog import read_dataset
    from tbps.data.records import Batch, PersonDataset, PersonImage
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "tbps.data.augment.back_translation": ["Journal", "MarianTranslator", "TrainFile", "back_translate", "read_train_file"],
            "tbps.data.augment.image": ["ImageAugmentation", "augment_images"],
            "tbps.data.augment.text": ["augment_caption"],
            "tbps.data.augment.views": ["ViewAugmentation", "simclr_view_of"],
            "tbps.data.batches": ["Batches", "epoch_batches"],
            "tbps.data.cache": ["ImageCache", "cache_folder", "cached_files", "erase_cache", "near"],
            "tbps.data.embedding": ["decoded", "describe_source", "embed_split", "identities"],
            "tbps.data.mannequins.ceiling": ["ceiling_scores"],
            "tbps.data.mannequins.drawing": ["draw_person", "encode_picture"],
            "tbps.data.mannequins.population": ["population", "sample_view"],
            "tbps.data.mannequins.writing": ["SplitSize", "write_mannequins"],
            "tbps.data.proportions": ["Pictures"],
            "tbps.data.readers.annotations": ["CONTEXT_WORDS", "long_captions"],
            "tbps.data.readers.catalog": ["read_dataset"],
            "tbps.data.records": ["Batch", "PersonDataset", "PersonImage"],
        },
    )

__all__ = [
    "CONTEXT_WORDS",
    "Batch",
    "Batches",
    "ImageAugmentation",
    "ImageCache",
    "Journal",
    "MarianTranslator",
    "PersonDataset",
    "PersonImage",
    "Pictures",
    "SplitSize",
    "TrainFile",
    "ViewAugmentation",
    "augment_caption",
    "augment_images",
    "back_translate",
    "cache_folder",
    "cached_files",
    "ceiling_scores",
    "decoded",
    "describe_source",
    "draw_person",
    "embed_split",
    "encode_picture",
    "epoch_batches",
    "erase_cache",
    "identities",
    "long_captions",
    "near",
    "population",
    "read_dataset",
    "read_train_file",
    "sample_view",
    "simclr_view_of",
    "write_mannequins",
]
