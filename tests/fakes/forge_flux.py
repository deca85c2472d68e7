"""Flux in Forge: a transformer with BFL's names, a VAE without quantising convolutions, noise mixed in by shares."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Mapping
from typing import Any

import torch
from ldm.modules.diffusionmodules.model import Decoder, Encoder
from ldm.modules.distributions.distributions import DiagonalGaussianDistribution
from rule import randn_for, value
from torch import nn

from fakes.a1111 import CheckpointInfo
from fakes.flux import FluxShape, FluxTransformer, flux_value
from fakes.forge_layers import ForgeLinear, store
from fakes.forge_patcher import NetworkModel
from fakes.networks import AUTOENCODER, POOL, fill
from fakes.prompts import TOKENS_PER_CHUNK

CHANNELS, SCALE, SHIFT, MOVE = 16, 0.3611, 0.1159, 1.15
PLACES = 10_000  # of its schedule
SHAPES = {"flux": FluxShape(), "schnell": FluxShape(guided=False)}


class FluxCheckpoint(CheckpointInfo):
    """A Flux checkpoint on the list."""

    @property
    def state(self) -> Mapping[str, torch.Tensor]:
        return state_of(self.base, self.weights or self.name)


class FluxAutoencoder(nn.Module):
    """LDM's autoencoder of sixteen channels, its moments straight from the encoder."""

    quant_conv = post_quant_conv = None
    scaling_factor, shift_factor = SCALE, SHIFT

    def __init__(self) -> None:
        super().__init__()
        sizes = AUTOENCODER | {"z_channels": CHANNELS}
        with contextlib.redirect_stdout(io.StringIO()):
            self.encoder, self.decoder = Encoder(**sizes, double_z=True), Decoder(**sizes)
        self.eval().requires_grad_(False)

    def encode(self, image: torch.Tensor) -> DiagonalGaussianDistribution:
        """Image [B,3,H,W] in [-1,1] -> posterior."""
        return DiagonalGaussianDistribution(self.encoder(image))

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """VAE-space latent [B,16,h,w] -> image in about [-1,1]."""
        return self.decoder(latent)


class FluxPredictor:
    """Noise levels from 0 to 1, most of them high; a level is the share of noise in what is sampled."""

    def percent_to_sigma(self, percent: float) -> float:
        """Noise level after a share of the schedule, as this WebUI says it."""
        return min(max(1.0 - percent, 0.0), 1.0)


class Schedule:
    """The levels of a sampling, and noise mixed in at one."""

    @staticmethod
    def levels(steps: int) -> torch.Tensor:
        """Falling noise levels [steps + 1], the last 0."""
        even = torch.linspace(1, 1 / steps, steps)
        factor = torch.tensor(MOVE).exp()
        return torch.cat([factor * even / (1 + (factor - 1) * even), torch.zeros(1)])

    @staticmethod
    def automatic(steps: int) -> torch.Tensor:
        """Places instead of levels, down to the first, which has no noise."""
        return torch.cat([torch.linspace(PLACES - 1, 0, steps), torch.zeros(1)])

    @staticmethod
    def noisy(latent: torch.Tensor, noise: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """A latent with its share of noise."""
        return (1 - level) * latent + level * noise


class FluxKModel(NetworkModel):
    """The transformer with its predictor."""

    predictor_kind = FluxPredictor

    def apply_model(self, x: torch.Tensor, t: torch.Tensor, c_crossattn: Any, transformer_options: Any, **conds: Any):
        """A picture without noise."""
        velocity = self.diffusion_model(
            x, t.float(), context=c_crossattn, control=None, transformer_options=transformer_options, **conds
        )
        return x - t[:, None, None, None] * velocity.float()


def network_of(base: str, storage: torch.dtype) -> FluxTransformer:
    """A transformer with Forge's layers."""
    network = FluxTransformer(SHAPES[base])
    for path, module in list(network.named_modules()):
        if type(module) is nn.Linear:
            parent, _, name = path.rpartition(".")
            setattr(network.get_submodule(parent), name, ForgeLinear(module))
    for module in network.modules():
        store(module, storage if isinstance(module, ForgeLinear) else torch.float32)
    return network.requires_grad_(False)


@functools.cache
def state_of(base: str, name: str) -> Mapping[str, torch.Tensor]:
    """The float32 tensors of the checkpoint called `name`."""
    transformer = FluxTransformer(SHAPES[base]).state_dict()
    prefixes = {"model.diffusion_model.": flux_value, "vae.": lambda stem, key, shape: value(f"{stem}/{key}", shape)}
    parts = dict(zip(prefixes, (transformer, FluxAutoencoder().state_dict()), strict=True))
    return {
        prefix + key: prefixes[prefix](name, key, tuple(tensor.shape))
        for prefix, state in parts.items()
        for key, tensor in state.items()
    }


def networks(info: CheckpointInfo, storage: torch.dtype) -> tuple[FluxTransformer, FluxAutoencoder]:
    """Transformer and VAE of a checkpoint."""
    transformer = POOL.take((info.base, storage), lambda: network_of(info.base, storage))
    vae = POOL.take("flux vae", FluxAutoencoder)
    fill(transformer, info.state, "model.diffusion_model.")
    fill(vae, info.state, "vae.")
    return transformer, vae


def embed(text: str, guidance: float | None) -> dict[str, torch.Tensor]:
    """Conditioning of a text."""
    shape, text = FluxShape(), text.strip()
    found = {
        "crossattn": randn_for(f"text/{text}", (TOKENS_PER_CHUNK, shape.context)),
        "vector": randn_for(f"pooled/{text}", (shape.pooled,)),
    }
    return found if guidance is None else found | {"guidance": torch.tensor(guidance)}
