"""Lookup-free quantization (LFQ): latent vectors to ordered sign bits and back.

Every bit is the sign of something, so there is no codebook to search. With `planes=1` this is the LFQ
of MAGVIT-v2 (Yu et al., ICLR 2024, section 3.1): the latent is RMS-normalized and each dimension keeps
its sign. With more planes each dimension is quantized again and again: plane p is the sign of what the
planes before it left over, worth half as much as theirs. Together the planes are an embedded uniform
quantizer, so a prefix of the bits is a coarser code of the same latent.

Bits have one fixed order (`bit_order`), most important first; a stream that keeps only the first k
bits of each position still decodes, the missing bits contribute zero.

This file knows nothing of video or networks: latents in, bits out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUP_DIMS = 8  # dimensions that stand together in the bit order


def bit_order(dims: int, planes: int) -> list[tuple[int, int]]:
    """The (plane, dimension) of each of the K = dims * planes bits, most important first.

    Dimension group g (of 8 dimensions) and plane p stand at rank g + 2p, so that the second plane of
    the first group comes before the first plane of the last groups; ties go to the lower plane.
    """
    if dims < 1 or planes < 1:
        raise ValueError(f"dims and planes must be positive, not {dims} and {planes}")
    pairs = [(plane, dim) for plane in range(planes) for dim in range(dims)]
    return sorted(pairs, key=lambda bit: (bit[1] // GROUP_DIMS + 2 * bit[0], bit[0], bit[1]))


def tokens_from_bits(bits: Tensor) -> Tensor:
    """Bits to token integers: token = sum over i of bits[i] * 2**i (MAGVIT-v2, equation 3).

    Args:
        bits: bool or integer `[B, K, t, h, w]`, values 0 and 1, K at most 64.

    Returns:
        int64 `[B, t, h, w]`; for K = 64 bit 63 is the sign bit (view it as uint64 in NumPy).

    Raises:
        ValueError: K is above 64.
    """
    if bits.shape[1] > 64:
        raise ValueError(f"a token holds at most 64 bits, not {bits.shape[1]}")
    shift = torch.arange(bits.shape[1], device=bits.device).view(1, -1, 1, 1, 1)
    return (bits.long() << shift).sum(dim=1)


def bits_from_tokens(tokens: Tensor, token_bits: int) -> Tensor:
    """The inverse of `tokens_from_bits`.

    Args:
        tokens: int64 `[B, t, h, w]`.
        token_bits: K, 1 to 64.

    Returns:
        bool `[B, K, t, h, w]`.

    Raises:
        ValueError: `token_bits` is outside 1 to 64.
    """
    if not 1 <= token_bits <= 64:
        raise ValueError(f"token_bits must be 1 to 64, not {token_bits}")
    shift = torch.arange(token_bits, device=tokens.device).view(1, -1, 1, 1, 1)
    return ((tokens.unsqueeze(1) >> shift) & 1).bool()


class Quantized(NamedTuple):
    """What training needs of one quantizer call."""

    latent: Tensor  # float32 [B, dims, t, h, w]: quantized, with straight-through gradient
    bits: Tensor  # bool [B, K, t, h, w]: all K bits, whatever was kept
    margins: Tensor  # float32 [B, K, t, h, w]: signed distance to the decision, in units of the bit's level
    commitment: Tensor  # float32 scalar: mean squared distance from latent to its own full code


class LFQ(nn.Module):
    """The quantizer. It has no parameters.

    Args:
        dims: latent dimensions D.
        planes: bit-planes a dimension; K = dims * planes.
    """

    bit_planes: Tensor
    bit_dims: Tensor

    def __init__(self, dims: int = 32, planes: int = 2) -> None:
        super().__init__()
        order = bit_order(dims, planes)
        self.dims, self.planes, self.token_bits = dims, planes, dims * planes
        self.register_buffer("bit_planes", torch.tensor([p for p, _ in order]), persistent=False)
        self.register_buffer("bit_dims", torch.tensor([d for _, d in order]), persistent=False)

    def level(self, plane: int) -> float:
        """The size of one plane's step: 1 for the paper's single plane, else 1/2, 1/4, ..."""
        return 1.0 if self.planes == 1 else 0.5 ** (plane + 1)

    def bound(self, u: Tensor) -> Tensor:
        """Network output to the latent that is quantized: RMS norm for one plane, tanh for several."""
        u = u.float()
        if self.planes == 1:
            return u * torch.rsqrt(u.square().mean(dim=1, keepdim=True) + 1e-6)
        return torch.tanh(u)

    def _margins(self, z: Tensor) -> Tensor:
        """Latent `[B, D, ...]` to ordered margins `[B, K, ...]`; the sign of a margin is its bit."""
        residual, planes = z, []
        for plane in range(self.planes):
            level = self.level(plane)
            planes.append(residual / level)
            residual = residual - torch.where(residual > 0, level, -level)
        return torch.cat(planes, dim=1)[:, self.bit_planes * self.dims + self.bit_dims]

    def bits(self, u: Tensor) -> Tensor:
        """Quantize.

        Args:
            u: float `[B, D, t, h, w]`, unbounded network output.

        Returns:
            bool `[B, K, t, h, w]` in bit order.
        """
        return self._margins(self.bound(u)) > 0

    def latent(self, bits: Tensor, kept: Tensor | None = None) -> Tensor:
        """Dequantize.

        Args:
            bits: bool `[B, k, t, h, w]`, the first k <= K bits in order.
            kept: int `[B]`: of these, how many count for each sample (all k if None).

        Returns:
            float32 `[B, D, t, h, w]`; a bit that is absent contributes 0.

        Raises:
            ValueError: k is above K.
        """
        k = bits.shape[1]
        if k > self.token_bits:
            raise ValueError(f"this quantizer has {self.token_bits} bits, not {k}")
        level = torch.tensor([self.level(p) for p in range(self.planes)], device=bits.device)
        weight = level[self.bit_planes[:k]].view(1, k, 1, 1, 1)
        if kept is not None:
            weight = weight * (torch.arange(k, device=bits.device) < kept[:, None]).view(-1, k, 1, 1, 1)
        values = torch.where(bits, weight, -weight)
        out = torch.zeros(bits.shape[0], self.dims, *bits.shape[2:], device=bits.device)
        return out.index_add_(1, self.bit_dims[:k], values)

    def forward(self, u: Tensor, kept: Tensor | None = None, unquantized: Tensor | None = None) -> Quantized:
        """Quantize for training, with straight-through gradient.

        Args:
            u: float `[B, D, t, h, w]`, unbounded network output.
            kept: int `[B]`: bits that reach the decoder, per sample (all if None).
            unquantized: bool `[B]`: samples that pass without quantization (warm start; none if None).
        """
        z = self.bound(u)
        margins = self._margins(z)
        bits = margins > 0
        full = self.latent(bits)
        quantized = full if kept is None else self.latent(bits, kept)
        through = z
        if kept is not None:  # a dimension without any bit carries neither value nor gradient
            alive = torch.zeros(z.shape[0], self.dims, device=z.device)
            alive.index_add_(1, self.bit_dims, (torch.arange(self.token_bits, device=z.device) < kept[:, None]).float())
            through = z * (alive > 0).view(*alive.shape, 1, 1, 1)
        straight = through + (quantized - through).detach()
        if unquantized is not None:
            straight = torch.where(unquantized.view(-1, 1, 1, 1, 1), through, straight)
        return Quantized(straight, bits, margins, F.mse_loss(z, full.detach()))


def entropy_terms(
    margins: Tensor, temperature: float = 1.0, mean_of_processes: Callable[[Tensor], Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """The two entropies of the LFQ penalty E[H(q|z)] - H(E[q]) (MAGVIT-v2, equation 5), mean per bit.

    The code is soft-assigned by softmax(-|z - c|^2 / temperature) over all 2^K codes c, with z in units
    of the bit's level. For sign bits this is a product of independent bits, each on with probability
    sigmoid(4 z / temperature): the first entropy is exact at any K, and so cheap at K = 64. The second
    is the sum of the bits' own entropies, an upper bound of the joint one.

    Args:
        margins: float `[B, K, t, h, w]` of `Quantized`.
        temperature: in squared units of the level, above 0.
        mean_of_processes: averages a tensor over the processes that share a batch (None: there is one).

    Returns:
        Entropy of single codes (to be made small) and of the average code (to be made large); float32
        scalars in nats per bit, 0 to log(2).
    """
    logits = margins * (4 / temperature)
    on = torch.sigmoid(logits)
    single = (F.softplus(logits) - on * logits).mean()
    usage = on.mean(dim=(0, 2, 3, 4))
    if mean_of_processes is not None:
        usage = mean_of_processes(usage)
    usage = usage.clamp(1e-6, 1 - 1e-6)
    average = -(usage * usage.log() + (1 - usage) * (1 - usage).log()).mean()
    return single, average
