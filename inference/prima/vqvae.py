"""The tokenizer: a VQ-VAE that turns blocks of 8 x 32 x 32 voxels into 2 x 2 x 8 x 8 numbers.

Parameter names are those of the published checkpoint (and of MONAI's VQVAE). The model of the
study reads the encoder's output before quantization; codebook and decoder serve training and
reconstruction. Shape legend: N blocks, C channels, K codes; the thin axis is one of three.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.errors import InputError, OutOfMemoryError
from inference.prima.quantizer import VectorQuantizer
from inference.prima.vqvae_config import TokenizerConfig

CPU_CHUNK_BYTES = 64 << 20
CUDA_CHUNK_BYTES = 4 << 30
LIVE_COPIES = 4
"""Largest activations alive at once in a residual unit."""


class VQVAE(nn.Module):
    """Encoder, codebook and decoder."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantizer = VectorQuantizer(config)

    def encode(self, blocks: Tensor) -> Tensor:
        """Encoder output, not quantized: [N, 1, 8, 32, 32] (any axis thin) to [N, 2, 2, 8, 8]."""
        encoded: Tensor = self.encoder(blocks)
        return encoded

    def indices(self, blocks: Tensor) -> Tensor:
        """Nearest code of every place: int64 [N, 2, 8, 8]."""
        return self.quantizer.quantizer.nearest(self.encode(blocks))

    def decode(self, latents: Tensor) -> Tensor:
        """Voxels of quantized latents."""
        decoded: Tensor = self.decoder(latents)
        return decoded

    def decode_indices(self, indices: Tensor) -> Tensor:
        """Voxels of codes."""
        return self.decode(self.quantizer.quantizer.embed(indices))

    def forward(self, blocks: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction and commitment loss; in training mode the codebook moves too."""
        loss, quantized = self.quantizer(self.encode(blocks))
        return self.decode(quantized), loss


class Tokenizer:
    """Encodes many blocks in chunks that fit cache or device memory."""

    def __init__(self, model: VQVAE, *, compiled: bool = False) -> None:
        """Take a model on its device; with `compiled` the first call takes a minute longer."""
        self.model: VQVAE = model.eval().to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._rest = torch.compile(model.encoder.rest) if compiled else model.encoder.rest

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.quantizer.quantizer.ema_w.device

    def encode(self, blocks: Tensor, scale: float = 1.0) -> Tensor:
        """Encode blocks whose thin axis is doubled already: [N, 1, 8, 32, 32] to [N, 2, ...].

        Args:
            blocks: on any device; chunks travel to the model's.
            scale: share of the usual memory.

        Raises:
            OutOfMemoryError: not even one block at a time fits.
        """
        return self._in_chunks(blocks, self.model.encoder.first, scale)

    def encode_thin(self, blocks: Tensor, axis: int, scale: float = 1.0) -> Tensor:
        """Encode blocks with each of their 4 slices once, [N, 4, 32, 32] when `axis` is 0.

        The numbers are those of `encode` on doubled slices, up to rounding: doubling before a
        kernel of 4 with stride 2 is a kernel of 3 whose middle weight sums the two that fell on
        one slice.

        Raises:
            InputError: `axis` is none of 0, 1, 2.
            OutOfMemoryError: not even one block at a time fits.
        """
        if axis not in (0, 1, 2):
            raise InputError(f"thin axis {axis}: volumes have axes 0, 1 and 2")
        blocks = blocks.unsqueeze(1)
        if self.model.config.down[0] != (2, 4, 1, 1):
            return self.encode(blocks.repeat_interleave(2, dim=axis + 2), scale)
        conv = self.model.encoder.first.conv
        one, two, three, four = conv.weight.detach().unbind(axis + 2)
        weight = torch.stack((one, two + three, four), dim=axis + 2)
        stride = [1 if i == axis else 2 for i in range(3)]
        return self._in_chunks(
            blocks,
            lambda x: functional.conv3d(x, weight, conv.bias, stride, padding=1).relu(),
            scale,
        )

    @torch.inference_mode()
    def _in_chunks(self, blocks: Tensor, first: Callable[[Tensor], Tensor], scale: float) -> Tensor:
        device = self.device
        budget = CUDA_CHUNK_BYTES if device.type == "cuda" else CPU_CHUNK_BYTES
        size = max(1, int(budget * scale) // self._bytes_per_block())
        parts = [
            self._one(part, first, device)
            for part in (torch.split(blocks, size) if len(blocks) else (blocks,))
        ]
        return torch.cat(parts)

    def _one(self, part: Tensor, first: Callable[[Tensor], Tensor], device: torch.device) -> Tensor:
        part = part.to(device=device, dtype=torch.float32, non_blocking=True)
        try:
            encoded: Tensor = self._rest(first(part.to(memory_format=torch.channels_last_3d)))
        except torch.OutOfMemoryError as error:
            raise OutOfMemoryError(
                f"{len(part)} blocks at a time do not fit the device's memory"
            ) from error
        return encoded.contiguous()

    def _bytes_per_block(self) -> int:
        """Of the activations after the first kernel, the largest: 1 024 places of C channels."""
        return LIVE_COPIES * 1024 * self.model.config.channels[0] * 4


class Encoder(nn.Module):
    """Strided convolutions, each followed by residual units; the last one to the latent width."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        width = config.in_channels
        blocks: list[nn.Module] = []
        for channels, inner, (stride, kernel, dilation, padding) in zip(
            config.channels, config.res_channels, config.down, strict=True
        ):
            conv = nn.Conv3d(width, channels, kernel, stride, padding, dilation)
            blocks.append(Convolution(conv, active=True))
            blocks += [ResidualUnit(channels, inner) for _ in range(config.res_layers)]
            width = channels
        blocks.append(Convolution(nn.Conv3d(width, config.code_width, 3, padding=1)))
        self.blocks = nn.ModuleList(blocks)

    @property
    def first(self) -> Convolution:
        """The kernel that reads voxels."""
        return cast("Convolution", self.blocks[0])

    def forward(self, x: Tensor) -> Tensor:
        """Voxels to latents."""
        return self.rest(self.first(x))

    def rest(self, x: Tensor) -> Tensor:
        """All but the first kernel."""
        for block in self.blocks[1:]:
            x = block(x)
        return x


class Decoder(nn.Module):
    """The encoder's mirror, with transposed convolutions."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        channels = config.channels[::-1]
        after = (*channels[1:], config.out_channels)
        blocks: list[nn.Module] = [
            Convolution(nn.Conv3d(config.code_width, channels[0], 3, padding=1))
        ]
        for place, (width, following, inner) in enumerate(
            zip(channels, after, config.res_channels[::-1], strict=True)
        ):
            stride, kernel, dilation, padding, extra = config.up[place]
            blocks += [ResidualUnit(width, inner) for _ in range(config.res_layers)]
            conv = nn.ConvTranspose3d(
                width, following, kernel, stride, padding, extra, dilation=dilation
            )
            blocks.append(Convolution(conv, active=place < len(channels) - 1))
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Latents to voxels."""
        for block in self.blocks:
            x = block(x)
        return x


class Convolution(nn.Module):
    """A convolution, then ReLU if `active`."""

    def __init__(self, conv: nn.Conv3d | nn.ConvTranspose3d, *, active: bool = False) -> None:
        super().__init__()
        self.conv = conv
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, ...] -> [N, out, ...]."""
        out: Tensor = self.conv(x)
        return out.relu() if self.active else out


class ResidualUnit(nn.Module):
    """relu(x + conv2(relu(conv1(x))))."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.conv1 = Convolution(nn.Conv3d(channels, inner, 3, padding=1), active=True)
        self.conv2 = Convolution(nn.Conv3d(inner, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape out."""
        out: Tensor = x + self.conv2(self.conv1(x))
        return out.relu()
