"""The posterior of any WebUI's VAE, met where it passes: at the output of `quant_conv`, else of the encoder (Flux).

Moments are [B,2C,h,w]: mean and logarithm of the variance. With the least variance that the WebUIs allow, sampling
from a posterior and taking its mode both give the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ...core.errors import InputError

LEAST, MOST = -30.0, 20.0  # what the autoencoders clamp the logarithm of the variance to

Adjust = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@contextmanager
def adjusted_posterior(vae: nn.Module, adjust: Adjust) -> Iterator[None]:
    """Inside, encoding gives `adjust(mean, deviation)` [B,C,h,w] float32 instead of a sample.

    InputError for a VAE that cannot encode.
    """
    layer = getattr(vae, "quant_conv", None) or getattr(vae, "encoder", None)
    if layer is None:
        raise InputError(
            f"a VAE without encoder ({type(vae).__name__})", "the VAE of SD1.5, SDXL or Flux", "load the base's own VAE"
        )

    def hook(_layer: nn.Module, _inputs: tuple, moments: torch.Tensor) -> torch.Tensor:
        mean, logarithm = moments.float().chunk(2, dim=1)
        deviation = torch.exp(0.5 * logarithm.clamp(LEAST, MOST))
        adjusted = adjust(mean, deviation)
        return torch.cat([adjusted, torch.full_like(adjusted, LEAST)], dim=1).to(moments)

    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def mean_encoding(vae: nn.Module):
    """A context in which encoding gives the posterior's mean."""
    return adjusted_posterior(vae, lambda mean, _deviation: mean)
