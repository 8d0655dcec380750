"""Cross-modal encoder of IRRA for masked language modelling: predicts masked words of a caption from the caption and its image.

Jiang and Ye, "Cross-Modal Implicit Relation Reasoning and Aligning for Text-to-Image Person Retrieval", CVPR 2023, section 3.2:
one cross attention (queries: text tokens; keys and values: image tokens), four transformer layers, and a head of dense, QuickGELU,
LayerNorm and vocabulary layers. As in IRRA's code, both inputs and the output are normalised, layers are pre-norm, and every norm
has PyTorch's default eps, 1e-5.
"""

from typing import final

from jaxtyping import Bool, Float
from torch import Tensor, nn

from tbps.model.activation import QuickGELU


@final
class CrossModalEncoder(nn.Module):
    """Cross-modal encoder: text tokens (n, L, D) and image tokens (n, P, D) -> logits over the vocabulary."""

    def __init__(self, dim: int, vocabulary: int, layers: int = 4) -> None:
        super().__init__()
        heads = max(1, dim // 64)
        self.text_norm, self.image_norm, self.last_norm = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.layers = nn.ModuleList(_Block(dim, heads) for _ in range(layers))
        self.dense, self.activation, self.norm = nn.Linear(dim, dim), QuickGELU(), nn.LayerNorm(dim)
        self.words = nn.Linear(dim, vocabulary)
        self._initialise(dim, layers)

    def forward(
        self, text: Float[Tensor, "n L D"], image: Float[Tensor, "n P D"], unseen: Bool[Tensor, "n L"] | None = None
    ) -> Float[Tensor, "n L D"]:
        """Returns the text tokens (n, L, D) after attention to the image. `unseen`: positions that are masked as attention keys."""
        keys = self.image_norm(image)
        mixed: Tensor = self.attention(self.text_norm(text), keys, keys, need_weights=False)[0]
        for layer in self.layers:
            mixed = layer(mixed, unseen)
        normed: Tensor = self.last_norm(mixed)
        return normed

    def predict(self, tokens: Float[Tensor, "m D"]) -> Float[Tensor, "m V"]:
        """Returns vocabulary logits for the given tokens. Pass the masked ones only: the vocabulary is large."""
        logits: Tensor = self.words(self.norm(self.activation(self.dense(tokens))))
        return logits

    def _initialise(self, dim: int, layers: int) -> None:
        """Initialises as IRRA: std dim^-0.5 for attention inputs, (2 * dim)^-0.5 for widening layers.

        Layers that end a block and the vocabulary layer use dim^-0.5 * (2 * layers)^-0.5.
        """
        narrow = dim**-0.5 * (2 * layers) ** -0.5
        for attention in (self.attention, *(layer.attention for layer in self.layers if isinstance(layer, _Block))):
            nn.init.normal_(attention.in_proj_weight, std=dim**-0.5)
            nn.init.normal_(attention.out_proj.weight, std=narrow)
        for layer in self.layers:
            if isinstance(layer, _Block):
                nn.init.normal_(layer.widen.weight, std=(2 * dim) ** -0.5)
                nn.init.normal_(layer.narrow.weight, std=narrow)
        nn.init.normal_(self.dense.weight, std=(2 * dim) ** -0.5)
        nn.init.normal_(self.words.weight, std=narrow)


@final
class _Block(nn.Module):
    """A pre-norm transformer layer: self-attention, then a feed-forward layer four times as wide."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.first_norm, self.second_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.widen, self.activation, self.narrow = nn.Linear(dim, 4 * dim), QuickGELU(), nn.Linear(4 * dim, dim)

    def forward(self, tokens: Tensor, unseen: Tensor | None = None) -> Tensor:
        """Applies the layer: (n, L, D) -> (n, L, D)."""
        keys = self.first_norm(tokens)
        tokens = tokens + self.attention(keys, keys, keys, key_padding_mask=unseen, need_weights=False)[0]
        widened: Tensor = self.narrow(self.activation(self.widen(self.second_norm(tokens))))
        return tokens + widened
