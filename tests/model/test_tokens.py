"""A trained vocabulary encodes any text and can be saved; truncated captions keep their end token."""

from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from tbps.model.tokens import count_tokens, tokenise, train_tokenizer

CAPTIONS = ["the man wears a navy jacket and black trousers", "a woman in a red coat with a black backpack"] * 20


def test_special_tokens_come_last_and_the_end_token_pads() -> None:
    tokenizer = train_tokenizer(CAPTIONS, 560)
    assert len(tokenizer) <= 560
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (len(tokenizer) - 2, len(tokenizer) - 1)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id


def test_frequent_words_become_one_token() -> None:
    tokenizer = train_tokenizer(CAPTIONS, 640)
    assert tokenizer.tokenize("backpack jacket") == ["backpack</w>", "jacket</w>"]


@pytest.mark.parametrize("text", ["zyxw", "一个女人", "😀", "naïve café", "x" * 40])
def test_unknown_text_can_be_encoded_and_decoded(text: str) -> None:
    tokenizer = train_tokenizer(CAPTIONS, 560)
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.eos_token_id not in ids[1:-1]
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == text.replace(" ", "")


def test_a_saved_tokenizer_is_restored(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(CAPTIONS, 600)
    tokenizer.save_pretrained(tmp_path)
    again = CLIPTokenizer.from_pretrained(tmp_path)
    assert again(CAPTIONS[0])["input_ids"] == tokenizer(CAPTIONS[0])["input_ids"]


def test_truncation_keeps_the_end_token() -> None:
    tokenizer = train_tokenizer(CAPTIONS, 600)
    tokens = tokenise(tokenizer, ["man " * 300, "man"], 77)
    assert tokens.shape == (2, 77)
    assert tokens[0, -1] == tokens[1, 2] == tokenizer.eos_token_id
    assert count_tokens(tokenizer, "man " * 300) == 302
