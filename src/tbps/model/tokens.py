"""Tokenisation of captions for CLIP, and training of a small byte-pair vocabulary."""

import json
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Bool, Int
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
"""Tokens of CLIP's vocabulary before and after every caption."""


def tokenise(tokenizer: CLIPTokenizer, captions: Sequence[str], context_length: int) -> torch.Tensor:
    """Tokenises cleaned captions to (N, L) int64. L: length of the longest caption, at most `context_length`.

    Truncated captions keep the end token.
    """
    encoded = tokenizer(list(captions), padding=True, truncation=True, max_length=context_length, return_tensors="pt")
    tokens: torch.Tensor = encoded["input_ids"]
    return tokens


def behind_captions(tokens: Int[torch.Tensor, "n L"]) -> Bool[torch.Tensor, "n L"]:
    """Returns a mask of the positions after the end token of each caption.

    The end token has the highest id, so it is the first maximum of a row.
    """
    return torch.arange(tokens.shape[1], device=tokens.device) > tokens.argmax(dim=1, keepdim=True)


def padded_to(tokens: Int[torch.Tensor, "n L"], length: int) -> Int[torch.Tensor, "n {length}"]:
    """Pads captions with token 0 to `length`, as OpenAI's CLIP and IRRA do; padding already present is replaced by 0."""
    blank = tokens.masked_fill(behind_captions(tokens), 0)
    return torch.nn.functional.pad(blank, (0, length - tokens.shape[1]))


def count_tokens(tokenizer: CLIPTokenizer, caption: str) -> int:
    """Counts the tokens of a cleaned caption, including start and end token, without truncation."""
    return len(tokenizer(caption)["input_ids"])


def train_tokenizer(captions: Iterable[str], vocabulary: int) -> CLIPTokenizer:
    """Trains the byte-pair merges of a CLIP tokenizer on cleaned captions. `vocabulary`: largest number of tokens.

    Any text can be encoded, since the 256 bytes, within a word and at its end, are part of the vocabulary. The end token gets the
    last id and the start token the one before, as in OpenAI's vocabulary.
    """
    reference = CLIPTokenizer().backend_tokenizer
    learner = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix="</w>"))
    learner.normalizer, learner.pre_tokenizer = reference.normalizer, reference.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False)
    learner.train_from_iterator(captions, trainer)
    merges: list[tuple[str, str]] = [(left, right) for left, right in json.loads(learner.to_str())["model"]["merges"]]
    pieces = [*alphabet, *(f"{byte}</w>" for byte in alphabet)]
    known = set(pieces)
    for left, right in merges:
        if (merged := left + right) not in known:
            known.add(merged)
            pieces.append(merged)
    pieces = pieces[: vocabulary - 2]
    kept = set(pieces)
    usable = [pair for pair in merges if "".join(pair) in kept]
    ids = {piece: number for number, piece in enumerate(pieces)}
    ids |= {START: len(ids), END: len(ids) + 1}
    return CLIPTokenizer(vocab=ids, merges=usable)
