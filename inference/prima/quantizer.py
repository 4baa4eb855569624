"""The tokenizer's codebook: nearest codes, and their running means while it is trained.

Legend: N blocks, K codes, E code width. Codes get no gradient; in training they follow the mean of
what falls to them (van den Oord et al. 2017, appendix A.1).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.prima.vqvae_config import TokenizerConfig

COMPARED = 1 << 24
"""Distances computed at a time: 64 MB of float32."""


class VectorQuantizer(nn.Module):
    """Holds the codebook under the checkpoint's names and the perplexity of the last batch."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.quantizer = Codebook(config)
        self.perplexity = torch.tensor(0.0)

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Commitment loss and quantized latents, through which gradients pass unchanged."""
        quantized, loss, indices = self.quantizer(latents)
        used = torch.bincount(indices.flatten(), minlength=self.quantizer.codes).float()
        share = used / indices.numel()
        self.perplexity = torch.exp(-torch.sum(share * torch.log(share + 1e-10)))
        return loss, quantized


class Codebook(nn.Module):
    """K codes with the running sums they are the quotient of."""

    ema_cluster_size: Tensor
    ema_w: Tensor

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.codes, self.config = config.codes, config
        self.embedding = nn.Embedding(config.codes, config.code_width)
        self.embedding.weight.requires_grad_(False)
        self.register_buffer("ema_cluster_size", torch.zeros(config.codes))
        self.register_buffer("ema_w", self.embedding.weight.detach().clone())

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantized latents, commitment loss and codes; training moves the codebook afterwards."""
        indices = self.nearest(latents)
        quantized = self.embed(indices)
        if self.training:
            self._follow(latents.detach(), indices)
        loss = self.config.commitment * functional.mse_loss(quantized, latents)
        return latents + (quantized - latents).detach(), loss, indices

    @torch.no_grad()
    def nearest(self, latents: Tensor) -> Tensor:
        """Code with the smallest squared distance, in float32: int64 [N, ...]."""
        rows = latents.float().movedim(1, -1)
        weight = self.embedding.weight.float()
        size = max(1, COMPARED // self.codes)
        with torch.autocast(latents.device.type, enabled=False):
            lengths = weight.square().sum(dim=1)
            found = [
                torch.argmin(
                    part.square().sum(dim=1, keepdim=True) + lengths - 2 * (part @ weight.T), dim=1
                )
                for part in torch.split(rows.reshape(-1, rows.shape[-1]), size)
            ]
        return torch.cat(found).view(rows.shape[:-1])

    def embed(self, indices: Tensor) -> Tensor:
        """Codes as latents: [N, E, ...]."""
        return functional.embedding(indices, self.embedding.weight).movedim(-1, 1).contiguous()

    @torch.no_grad()
    def _follow(self, latents: Tensor, indices: Tensor) -> None:
        rows = latents.float().movedim(1, -1).reshape(-1, latents.shape[1])
        chosen = functional.one_hot(indices.flatten(), self.codes).float()
        fresh, config = 1 - self.config.decay, self.config
        self.ema_cluster_size.mul_(config.decay).add_(chosen.sum(0) * fresh)
        total = self.ema_cluster_size.sum()
        smooth = (self.ema_cluster_size + config.epsilon) / (total + self.codes * config.epsilon)
        self.ema_w.mul_(config.decay).add_((chosen.T @ rows) * fresh)
        self.embedding.weight.copy_(self.ema_w / (smooth * total).unsqueeze(1))
