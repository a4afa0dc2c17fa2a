"""The optimizers of the network: Muon for convolution kernels, AdamW for the rest."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.775, 2.0315)  # Jordan's coefficients: steepest at zero, singular values end near 1


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al., 2024) on convolution kernels, each flattened to a matrix.

    Nesterov momentum, made orthogonal by 5 Newton-Schulz steps, times .2 * sqrt(max(rows, columns)), so that
    the learning rate compares to AdamW's (Liu et al., "Muon is Scalable", 2025). torch.optim.Muon computes in
    bfloat16, which most CPUs emulate (half a minute a step here), takes matrices only, and its Newton-Schulz
    costs four times as much.

    Args:
        kernels: float32 parameters `[O, I, kh, kw]`.
        lr: learning rate.
        momentum: share of the past in the average of gradients.
        weight_decay: decoupled.
    """

    def __init__(self, kernels: list[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.01):
        super().__init__(kernels, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """One update from the gradients."""
        for group in self.param_groups:
            for kernel in group["params"]:
                if kernel.grad is None:
                    continue
                state = self.state[kernel]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(kernel)
                average = state["momentum_buffer"].lerp_(kernel.grad, 1 - group["momentum"])
                matrix = as_matrix(kernel.grad.lerp(average, group["momentum"]))
                rows, columns, *taps = kernel.shape
                update = orthogonal(matrix).view(rows, *taps, columns).permute(0, 3, 1, 2)
                kernel.mul_(1 - group["lr"] * group["weight_decay"])
                kernel.add_(update, alpha=-0.2 * math.sqrt(max(matrix.shape)) * group["lr"])


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """The matrix with its singular values brought near 1 (about .7 to 1.2) by Newton-Schulz steps.

    X <- (a + b XX' + c (XX')^2) X keeps the singular vectors, so every step is a polynomial of the first Gram
    matrix: the steps run on that small square, and the long side is multiplied twice in all.

    Args:
        matrix: float32 `[m, n]`.
        steps: of the iteration.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonal(matrix.T, steps).T
    a, b, c = NEWTON_SCHULZ
    x = matrix / matrix.norm().clamp(min=1e-7)
    gram = x @ x.T
    eye = torch.eye(len(gram), device=gram.device)
    product = eye
    for _ in range(steps):
        factor = torch.addmm(a * eye + b * gram, gram, gram, alpha=c)
        product = factor @ product
        gram = factor @ gram @ factor
    out: Tensor = product @ x
    return out


class MuonAdamW:
    """Muon on kernels, AdamW on other parameters.

    Matrices of 1x1 convolutions go to AdamW: stem, head and output map between unlike spaces. So do gains and biases.

    Args:
        named: parameters by name; those that need no gradient are left out.
        muon_lr: learning rate of Muon.
        adam_lr: learning rate of AdamW.
        muon_momentum: as for `Muon`.
    """

    def __init__(
        self, named: dict[str, nn.Parameter], muon_lr: float, adam_lr: float, muon_momentum: float = 0.95
    ) -> None:
        kernels: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for parameter in named.values():
            if parameter.requires_grad:
                (kernels if parameter.ndim == 4 else others).append(parameter)
        self.base_lrs = (muon_lr, adam_lr)
        self.muon = Muon(kernels, muon_lr, muon_momentum)
        self.adam = torch.optim.AdamW(others, lr=adam_lr, betas=(0.9, 0.99), weight_decay=0.0)

    def step(self, lr_scale: float) -> None:
        """One update from the gradients; both learning rates times `lr_scale`."""
        for optimizer, base in zip((self.muon, self.adam), self.base_lrs, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = base * lr_scale
            optimizer.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.muon.zero_grad()
        self.adam.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self.muon.state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.muon.load_state_dict(state["muon"])
        for group in self.muon.param_groups:  # a setting of this run, as the rates are
            group["momentum"] = self.muon.defaults["momentum"]
        self.adam.load_state_dict(state["adam"])


def as_matrix(kernel: Tensor) -> Tensor:
    """A convolution kernel `[O, I, kh, kw]` as `[O, kh * kw * I]`: a view if it is channels last."""
    return kernel.permute(0, 2, 3, 1).flatten(1)
