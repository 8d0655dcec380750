"""MarianMT models with a few thousand random weights, in the folder layout of the Hugging Face hub, for tests of translation."""

import io
import json
from pathlib import Path

import torch
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from transformers import MarianConfig, MarianMTModel

ENGLISH = (
    "A man wears a red coat and black trousers.",
    "The woman with long hair carries a white backpack, and she is walking.",
    "A young person in a grey shirt and blue jeans holds a bag.",
)
FRENCH = (
    "Un homme porte un manteau rouge et un pantalon noir.",
    "La femme aux cheveux longs porte un sac à dos blanc, et elle marche.",
    "Une jeune personne en chemise grise et en jean bleu tient un sac.",
)


def write_marian(folder: Path, source: tuple[str, ...], target: tuple[str, ...], seed: int, mute: bool = False) -> Path:
    """Write a model folder.

    `source`, `target`: sentences from which the vocabularies are trained; `mute`: make a model whose translations are empty.
    """
    folder.mkdir(parents=True)
    pieces: list[str] = []
    for name, sentences in (("source", source), ("target", target)):
        model = io.BytesIO()
        SentencePieceTrainer.train(
            sentence_iterator=iter(sentences), model_writer=model, vocab_size=80, hard_vocab_limit=False, minloglevel=2
        )
        (folder / f"{name}.spm").write_bytes(model.getvalue())
        processor = SentencePieceProcessor(model_proto=model.getvalue())
        pieces += [processor.IdToPiece(number) for number in range(3, processor.GetPieceSize())]
    words = ["</s>", "<unk>", *dict.fromkeys(pieces), "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "tokenizer_config.json").write_text('{"source_lang": "en", "target_lang": "fr"}')
    _model(len(words), seed, mute).save_pretrained(folder)
    return folder


def _model(vocabulary: int, seed: int, mute: bool) -> MarianMTModel:
    pad = vocabulary - 1
    config = MarianConfig(
        vocab_size=vocabulary,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_position_embeddings=48,
        init_std=1.0,
        pad_token_id=pad,
        eos_token_id=0,
        forced_eos_token_id=0,
        decoder_start_token_id=pad,
        static_position_embeddings=True,
        scale_embedding=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MarianMTModel(config)
    model.generation_config.bad_words_ids = [[pad]]
    model.generation_config.max_length = 512
    if mute:
        model.final_logits_bias[0, 0] = 1e4
    return model
