"""What learns from few shots on locked towers, put into a `CLIPModel` in place.

CoOp (Zhou et al., "Learning to Prompt for Vision-Language Models", IJCV 2022): vectors v_1 ... v_M, the same for all captions,
stand between the start token and the caption's first one. They begin as the embeddings of a text, and a caption is given to the
towers with that text in front, so that positions, end token and the cut to the context count them.

CLIP-Adapter (Gao et al., "CLIP-Adapter: Better Vision-Language Models with Feature Adapters", IJCV 2024): the image embedding f
becomes a G(f) + (1 - a) f with the bottleneck G(f) = ReLU(W2 ReLU(W1 f)), W1 (D/4, D), W2 (D, D/4).

Both take the place of a module of the towers and hold its weight under its name: the state of towers with them is that of plain
ones and `ADDED`.
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
"""Names, in the state of the towers, of what plain ones do not have."""

_NARROWER = 4  # the adapter's inner width, as a part of D


@final
class PromptedEmbedding(nn.Module):
    """The embedding of tokens, with learned vectors in the places behind the start token."""

    def __init__(self, words: nn.Parameter, text: str, tokens: Tensor) -> None:
        super().__init__()
        self.weight, self.text = words, text
        self.vectors = nn.Parameter(words.detach()[tokens].clone())

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, L) token ids, `text` in front of every caption -> (n, L, width)."""
        words, after = embedding(tokens, self.weight), 1 + len(self.vectors)
        return torch.cat([words[:, :1], self.vectors.expand(len(words), -1, -1), words[:, after:]], dim=1)


@final
class AdaptedProjection(nn.Module):
    """The projection to the image embedding, with an adapter behind it."""

    def __init__(self, projection: nn.Parameter, ratio: float) -> None:
        super().__init__()
        self.weight, self.ratio = projection, ratio
        dim = len(projection)
        self.narrow = nn.Linear(dim, dim // _NARROWER, bias=False)
        self.widen = nn.Linear(dim // _NARROWER, dim, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        """(..., width) -> (..., D)."""
        features = linear(states, self.weight)
        adapted: Tensor = self.widen(self.narrow(features).relu()).relu()
        return self.ratio * adapted + (1 - self.ratio) * features


def add_few_shot(clip: CLIPModel, tokenizer: CLIPTokenizer, settings: FewShotSettings, seed: int = 0) -> None:
    """Adds in place what `settings` name; the adapter's weights depend on the seed.

    Raises SettingsError where something was added before, or where the prompt leaves no room for a caption.
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
    """What was added to the towers."""
    words, projection = clip.text_model.embeddings.token_embedding, clip.visual_projection
    prompt = words.text if isinstance(words, PromptedEmbedding) else None
    ratio = projection.ratio if isinstance(projection, AdaptedProjection) else None
    return None if prompt is None and ratio is None else FewShotSettings(prompt=prompt, adapter_ratio=ratio)
