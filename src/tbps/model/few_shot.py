"""Few-shot methods for a `CLIPModel` with locked towers: learned prompt (CoOp) and adapter (CLIP-Adapter), added in place.

CoOp (Zhou et al., "Learning to Prompt for Vision-Language Models", IJCV 2022): learned vectors v_1 ... v_M, shared by
all captions, are inserted between the start token and the first token of the caption. They are initialised with the token
embeddings of a text. Captions are tokenised with that text in front, so that positions, end token and context length account for
the vectors.

CLIP-Adapter (Gao et al., "CLIP-Adapter: Better Vision-Language Models with Feature Adapters", IJCV 2024): the image embedding f
becomes a G(f) + (1 - a) f with the bottleneck G(f) = ReLU(W2 ReLU(W1 f)), W1 (D/4, D), W2 (D, D/4).

Each method replaces a module of the towers and keeps the module's weight under the same name, so the state dict has the names of
plain towers plus `ADDED`.
"""

from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear
from transformers import CLIPModel, CLIPTokenizer

from tbps.errors import SettingsError
from tbps.model.folder import PROMPT, FewShotSettings
from tbps.seeding import entropy

ADDED = (PROMPT, "visual_projection.narrow.weight", "visual_projection.widen.weight")
"""Names of the added weights in the state dict of the towers."""

_NARROWER = 4  # inner width of the adapter: D / 4


@final
class PromptedEmbedding(nn.Module):
    """Token embedding with learned vectors in the positions after the start token."""

    def __init__(self, words: nn.Parameter, text: str, tokens: Tensor) -> None:
        super().__init__()
        self.weight, self.text = words, text
        self.vectors = nn.Parameter(words.detach()[tokens].clone())

    def forward(self, tokens: Tensor) -> Tensor:
        """Embeds (n, L) token ids of captions with `text` in front -> (n, L, width)."""
        words, after = embedding(tokens, self.weight), 1 + len(self.vectors)
        return torch.cat([words[:, :1], self.vectors.expand(len(words), -1, -1), words[:, after:]], dim=1)


@final
class AdaptedProjection(nn.Module):
    """Projection to the image embedding, followed by an adapter."""

    def __init__(self, projection: nn.Parameter, ratio: float) -> None:
        super().__init__()
        self.weight, self.ratio = projection, ratio
        dim = len(projection)
        self.narrow = nn.Linear(dim, dim // _NARROWER, bias=False)
        self.widen = nn.Linear(dim // _NARROWER, dim, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        """Projects (..., width) -> (..., D)."""
        features = linear(states, self.weight)
        adapted: Tensor = self.widen(self.narrow(features).relu()).relu()
        return self.ratio * adapted + (1 - self.ratio) * features


def add_few_shot(clip: CLIPModel, tokenizer: CLIPTokenizer, settings: FewShotSettings, seed: int = 0) -> None:
    """Adds a prompt, an adapter or both in place; the initial weights of the adapter depend on the seed.

    Raises SettingsError where the model has one already, or where the prompt leaves no room for a caption.
    """
    if few_shot_of(clip) is not None:
        raise SettingsError("the start model has a learned prompt or adapter already; start from its backbone")
    device = clip.logit_scale.device
    if settings.prompt is not None:
        tokens, context = tokenizer(settings.prompt)["input_ids"][1:-1], clip.config.text_config.max_position_embeddings
        if len(tokens) + 2 >= context:
            raise SettingsError(f"few_shot.prompt has {len(tokens)} tokens and leaves no room for a caption in {context}")
        embeddings = clip.text_model.embeddings
        places = torch.tensor(tokens, device=device)
        embeddings.token_embedding = PromptedEmbedding(embeddings.token_embedding.weight, settings.prompt, places)
    if settings.adapter_ratio is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(entropy(seed, "adapter") & (2**63 - 1))
            clip.visual_projection = AdaptedProjection(clip.visual_projection.weight, settings.adapter_ratio).to(device)


def few_shot_of(clip: CLIPModel) -> FewShotSettings | None:
    """Returns the settings of the prompt and adapter of a model, None for plain towers."""
    words, projection = clip.text_model.embeddings.token_embedding, clip.visual_projection
    prompt = words.text if isinstance(words, PromptedEmbedding) else None
    ratio = projection.ratio if isinstance(projection, AdaptedProjection) else None
    return None if prompt is None and ratio is None else FewShotSettings(prompt=prompt, adapter_ratio=ratio)
