"""The adversarial stage: the decoder alone learns on, against a discriminator.

Encoder and quantizer stay as they are bit for bit, so tokens made before this stage mean the same after it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tokcodec.model import TokenizerConfig
from tokcodec.training import processes
from tokcodec.training.data import ClipSampler, to_pixels
from tokcodec.training.discriminator import Discriminator
from tokcodec.training.losses import (
    discriminator_hinge,
    frame_perceptual_loss,
    generator_hinge,
    lecam,
    reconstruction_loss,
)
from tokcodec.training.trainer import Trainer, TrainSettings, lr_scale

LECAM_KEEP = 0.99  # of the logits' moving averages, a step


@dataclasses.dataclass(frozen=True)
class AdversarialSettings(TrainSettings):
    """Gentler rates than the base stage's: the decoder is trained already."""

    muon_lr: float = 0.002
    adam_lr: float = 0.0002
    adversarial_weight: float = 0.1
    discriminator_lr: float = 0.0002
    discriminator_channels: int = 32
    lecam_weight: float = 0.001


class AdversarialTrainer(Trainer):
    """A `Trainer` of the decoder, with the discriminator, its optimizer and LeCAM's averages.

    Args and errors are those of `Trainer`.
    """

    stage = "adversarial"
    settings: AdversarialSettings

    def __init__(
        self,
        config: TokenizerConfig,
        settings: AdversarialSettings,
        sampler: ClipSampler,
        lpips: nn.Module,
        device: torch.device,
        dtype: torch.dtype,
        init: Path | None = None,
        compiled: bool = False,
    ) -> None:
        super().__init__(config, settings, sampler, lpips, device, dtype, init, compiled)
        self.model.encoder.requires_grad_(False)
        self.optimizer = self.new_optimizer()
        self.discriminator = Discriminator(settings.discriminator_channels).to(device)
        self.discriminator_optimizer = torch.optim.AdamW(
            self.discriminator.parameters(), betas=(0.5, 0.9), weight_decay=0.0
        )
        self.logit_means = torch.zeros(2, device=device)  # moving averages: real, decoded

    def train_step(self, batch: Tensor) -> dict[str, float]:
        """One step of the decoder, then one of the discriminator; as `Trainer.train_step`."""
        settings = self.settings
        scale = lr_scale(settings, self.step, self.position)
        clip = to_pixels(batch.to(self.device, non_blocking=True))
        clips, frames = self.batch_shape(self.step)
        kept, _, seen = self.draws(self.places(clips), frames)
        self.discriminator.requires_grad_(False)  # the decoder's loss must not teach it
        with self.autocast():
            with torch.no_grad():
                latent = self.model.quantizer.latent(self.model.quantizer.bits(self.encoder(clip)), kept)
            output = self.decoder(latent)
            perceptual = frame_perceptual_loss(self.lpips, output, clip, seen)
            adversarial = generator_hinge(self.discriminator(output))
        rec = reconstruction_loss(output, clip)
        loss = rec + settings.lpips_weight * perceptual + settings.adversarial_weight * adversarial
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = self.update(clip)

        self.discriminator.requires_grad_(True)
        with self.autocast():
            real, fake = self.discriminator(torch.cat([clip, output.detach().to(clip.dtype)])).chunk(2)
        hinge = discriminator_hinge(real, fake)
        penalty = lecam(real, fake, *self.logit_means)
        self.discriminator_optimizer.zero_grad()
        (hinge + settings.lecam_weight * penalty).backward()  # type: ignore[no-untyped-call]
        norm_discriminator = self.update_discriminator(scale)
        with torch.no_grad():
            means = processes.mean(torch.stack([real.float().mean(), fake.float().mean()]))
            self.logit_means.lerp_(means, 1 - LECAM_KEEP)
        return self.report(
            {
                "loss": loss,
                "rec": rec,
                "lpips": perceptual,
                "adversarial": adversarial,
                "grad_norm": norm,
                "discriminator": hinge,
                "lecam": penalty,
                "logit_real": means[0],
                "logit_decoded": means[1],
                "discriminator_grad_norm": norm_discriminator,
            }
        )

    def update_discriminator(self, scale: float) -> Tensor:
        """Average its gradients over processes, clip them to norm 1, update it; returns the norm before."""
        parameters = list(self.discriminator.parameters())
        processes.average_gradients(parameters)
        norm = nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in self.discriminator_optimizer.param_groups:
            group["lr"] = self.settings.discriminator_lr * scale
        self.discriminator_optimizer.step()
        return norm

    def state(self) -> dict[str, Any]:
        """All that a checkpoint holds: the base stage's keys and three more."""
        return super().state() | {
            "discriminator": self.discriminator.state_dict(),
            "discriminator_optimizer": self.discriminator_optimizer.state_dict(),
            "logit_means": self.logit_means,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave; the settings stay those of this trainer."""
        super().restore(state)
        self.discriminator.load_state_dict(state["discriminator"])
        self.discriminator_optimizer.load_state_dict(state["discriminator_optimizer"])
        self.logit_means.copy_(state["logit_means"])
