"""CLIP with two transformers, written from its definition, with the module and parameter names of OpenAI's checkpoints."""

import torch
from torch import nn


class QuickGELU(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / (1 + torch.exp(-1.702 * x))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, activation: type[nn.Module], mask: torch.Tensor | None) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 4 * width))
        self.mlp.add_module("gelu", activation())
        self.mlp.add_module("c_proj", nn.Linear(4 * width, width))
        self.ln_2 = nn.LayerNorm(width)
        self.attn_mask = mask

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normed = self.ln_1(x)
        mask = None if self.attn_mask is None else self.attn_mask[: len(x), : len(x)].to(x.dtype)
        x = x + self.attn(normed, normed, normed, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width: int, layers: int, activation: type[nn.Module], mask: torch.Tensor | None = None) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(*(Block(width, width // 64, activation, mask) for _ in range(layers)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.resblocks(x.transpose(0, 1)).transpose(0, 1)  # (tokens, N, width) inside


class Visual(nn.Module):
    def __init__(self, grid: tuple[int, int], patch: int, width: int, embedding: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(1 + grid[0] * grid[1], width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, 2, activation)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.zeros(width, embedding))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(pixels), 1, -1)
        x = self.ln_pre(torch.cat([first, patches], dim=1) + self.positional_embedding)
        return self.ln_post(self.transformer(x)[:, 0]) @ self.proj


class OpenAIClip(nn.Module):
    """A model with random weights, including norms, biases and position embeddings, which are usually initialised with 0 or 1."""

    def __init__(
        self,
        grid: tuple[int, int] = (4, 4),
        vocabulary: int = 600,
        context: int = 16,
        activation: type[nn.Module] = QuickGELU,
    ) -> None:
        super().__init__()
        self.visual = Visual(grid, 8, 128, 32, activation)
        mask = torch.full((context, context), -torch.inf).triu(1)
        self.transformer = Transformer(64, 3, activation, mask)
        self.token_embedding = nn.Embedding(vocabulary, 64)
        self.positional_embedding = nn.Parameter(torch.zeros(context, 64))
        self.ln_final = nn.LayerNorm(64)
        self.text_projection = nn.Parameter(torch.zeros(64, 32))
        self.logit_scale = nn.Parameter(torch.zeros([]))
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            inputs = parameter[0].numel() if parameter.ndim > 1 else 2
            parameter.data = torch.randn(parameter.shape, generator=generator) / inputs**0.5
        self.eval()

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.visual(pixels)

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
        x = self.ln_final(self.transformer(x))
        return x[torch.arange(len(x)), tokens.argmax(dim=1)] @ self.text_projection

    def forward(self, pixels: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.encode_image(pixels), self.encode_text(tokens)
