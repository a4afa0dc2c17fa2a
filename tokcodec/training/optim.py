"""The optimizers of the tokenizer: Muon for convolution kernels, AdamW for the rest."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class MuonAdamW:
    """Muon (momentum .95, 5 Newton-Schulz steps) on kernels flattened to matrices, AdamW on other parameters.

    torch.optim.Muon takes matrices only, so it is given parameters that share storage with the kernels.
    The patch stem and the pixel head map between unlike spaces and go to AdamW, as do gains and biases.

    Args:
        named: parameters by name; those that need no gradient are left out.
        muon_lr: its update is scaled by .2 * sqrt(max(rows, columns)), so it compares to an AdamW rate.
        adam_lr: learning rate of AdamW.
    """

    def __init__(self, named: dict[str, nn.Parameter], muon_lr: float, adam_lr: float) -> None:
        self.kernels: list[tuple[nn.Parameter, nn.Parameter]] = []
        others = []
        for name, parameter in named.items():
            if not parameter.requires_grad:
                continue
            if parameter.ndim == 5 and name not in ("encoder.stem.weight", "decoder.head.weight"):
                self.kernels.append((parameter, nn.Parameter(as_matrix(parameter.data))))
            else:
                others.append(parameter)
        self.base_lrs = (muon_lr, adam_lr)
        self.muon = torch.optim.Muon(
            [matrix for _, matrix in self.kernels],
            lr=muon_lr,
            weight_decay=0.01,
            momentum=0.95,
            ns_steps=5,
            adjust_lr_fn="match_rms_adamw",
        )
        self.adam = torch.optim.AdamW(others, lr=adam_lr, betas=(0.9, 0.99), weight_decay=0.0)

    def step(self, lr_scale: float) -> None:
        """One update from the gradients; both learning rates times `lr_scale`."""
        for optimizer, base in zip((self.muon, self.adam), self.base_lrs, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = base * lr_scale
        for kernel, matrix in self.kernels:
            matrix.grad = None if kernel.grad is None else as_matrix(kernel.grad)
        self.muon.step()  # type: ignore[no-untyped-call]
        self.adam.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.adam.zero_grad()
        for kernel, matrix in self.kernels:
            kernel.grad = matrix.grad = None

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self.muon.state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])


def as_matrix(kernel: Tensor) -> Tensor:
    """A convolution kernel `[O, I, kt, kh, kw]` as `[O, kt * kh * kw * I]`: a view if it is channels last."""
    return kernel.permute(0, 2, 3, 4, 1).flatten(1)
