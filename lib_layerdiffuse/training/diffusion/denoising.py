"""Shared by the diffusion trainers: denoising loss, average of the weights, low-rank layers on attention."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from diffusers.training_utils import EMAModel

from ...core.errors import InputError
from ...core.offsets.offsets import OffsetSet
from ..typed_modules import ModulesOf

# what a UNet of each prediction type is asked for, from clean latent, noise, and their shares in the noisy latent
TARGETS: dict[str, Callable] = {
    "epsilon": lambda latent, noise, signal, spread: noise,
    "v_prediction": lambda latent, noise, signal, spread: signal * noise - spread * latent,
    "sample": lambda latent, noise, signal, spread: latent,
}
# the weight of a step's squared error, by prediction type, that makes it min(SNR, gamma) times the latent's error
WEIGHTS: dict[str, Callable] = {
    "epsilon": lambda snr, gamma: snr.clamp(max=gamma) / snr,
    "v_prediction": lambda snr, gamma: snr.clamp(max=gamma) / (snr + 1),
    "sample": lambda snr, gamma: snr.clamp(max=gamma),
}


class DenoisingLoss(torch.nn.Module):
    """Squared error of a UNet's prediction on noisy latents, optionally weighted by min-SNR (arXiv 2303.09556).

    `alphas_cumprod` [timesteps] are a scheduler's shares of the clean latent, squared.
    """

    alphas: torch.Tensor

    def __init__(self, alphas_cumprod: torch.Tensor, prediction_type: str, snr_gamma: float = 0.0):
        super().__init__()
        self.register_buffer("alphas", alphas_cumprod.clone(), persistent=False)
        self.target, self.weight, self.snr_gamma = TARGETS[prediction_type], WEIGHTS[prediction_type], snr_gamma

    def forward(self, unet: Callable, latent: torch.Tensor, noise: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        """`latent` [B,C,h,w] in the sampler's scale, `steps` [B] in 0..len(alphas)-1; a scalar.

        `unet(noisy, steps)` is the network with its conditions filled in.
        """
        alphas = self.alphas[steps][:, None, None, None]
        signal, spread = alphas.sqrt(), (1 - alphas).sqrt()
        prediction = unet(signal * latent + spread * noise, steps)
        error = (prediction.float() - self.target(latent, noise, signal, spread)).square().mean(dim=(1, 2, 3))
        if self.snr_gamma:
            snr = (alphas / (1 - alphas)).flatten()
            error = error * self.weight(snr, self.snr_gamma)
        return error.mean()


class WeightAverage(torch.nn.Module):
    """Moving average of the trainable parameters of `source`, kept in its state dict: diffusers' EMAModel.

    Its warm-up follows the count of updates n: at most (n - 1) / (n + 8) of what was is kept, none by the first.
    """

    def __init__(self, source: torch.nn.Module, decay: float = 0.999):
        super().__init__()
        self.parameters_of = [parameter for parameter in source.parameters() if parameter.requires_grad]
        self.average = EMAModel(self.parameters_of, decay=decay, foreach=True)

    def get_extra_state(self) -> dict:
        """What a checkpoint keeps: no buffers, so that distributed training does not broadcast them at every step."""
        state = self.average.state_dict()
        return {**state, "shadow_params": [value.cpu() for value in state["shadow_params"]]}

    def set_extra_state(self, state: dict) -> None:
        """Take over a checkpoint's average; its decay is the one of now."""
        self.average.load_state_dict({**state, "decay": self.average.decay})

    def update(self) -> None:
        """Move the average towards the parameters as they are now."""
        self._follow_device()
        self.average.step(self.parameters_of)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the parameters have their averaged values."""
        self._follow_device()
        self.average.store(self.parameters_of)
        self.average.copy_to(self.parameters_of)
        try:
            yield
        finally:
            self.average.restore(self.parameters_of)

    def _follow_device(self) -> None:
        if self.parameters_of:
            self.average.to(self.parameters_of[0].device)


def nearest_pair(offset: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(up [out,r], down [r,in]) whose product is nearest to a weight's offset [out,in], r at most `rank`."""
    out, values, source = torch.linalg.svd(offset.float(), full_matrices=False)
    root = values[:rank].sqrt()
    return out[:, :rank] * root, source[:rank] * root[:, None]


# a weight's key in LDM's names, its shape, and what begins with an offset of it
Beginning = tuple[str, tuple[int, ...], Callable[[torch.Tensor], None]]


def begin_with(offsets: OffsetSet, layers: Iterable[Beginning], option: str) -> None:
    """Give each of `layers` its offsets [out,in] of a file; InputError naming `option` where it has none of theirs."""
    begun = 0
    for key, shape, begin in layers:
        for offset in offsets.entries.get(key, ()):
            begin(offset.dense(shape))
            begun += 1
    if not begun:
        raise InputError(
            f"{offsets.source} without offsets of this model's attention",
            "what `train diffusion --mode lora` wrote for the same model",
            f"name that file, or leave {option} out",
        )


class LowRankLayer(torch.nn.Module):
    """up @ down, added to a frozen linear layer's output; `up` starts at zero, so that nothing changes at first."""

    def __init__(self, linear: torch.nn.Linear, rank: int):
        super().__init__()
        rank = min(rank, linear.in_features, linear.out_features)
        self.up = torch.nn.Parameter(torch.zeros(linear.out_features, rank))
        self.down = torch.nn.Parameter(torch.randn(rank, linear.in_features) / math.sqrt(linear.in_features))

    @torch.no_grad()
    def begin(self, offset: torch.Tensor) -> None:
        """Begin with the nearest of this rank to a weight's offset [out,in]."""
        self.up.zero_()
        up, down = nearest_pair(offset, self.up.shape[1])
        self.up[:, : up.shape[1]], self.down[: len(down)] = up, down

    def add(self, module: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        """Forward hook of the frozen layer, output [...,out]."""
        change = inputs[0].to(self.down.dtype) @ self.down.T @ self.up.T
        return output + change.to(output.dtype)


PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")


class AttentionLowRank(torch.nn.Module):
    """Low-rank layers on the q, k, v and out projections of a diffusers UNet's attentions, until `remove`."""

    def __init__(self, unet: torch.nn.Module, rank: int):
        super().__init__()
        found = {
            name: module
            for name, module in unet.named_modules()
            if isinstance(module, torch.nn.Linear) and name.endswith(PROJECTIONS)
        }
        self.names = list(found)
        self.layers = ModulesOf([LowRankLayer(module, rank) for module in found.values()])
        places = zip(found.values(), self.layers, strict=True)
        self.handles = [module.register_forward_hook(layer.add) for module, layer in places]

    def pairs(self) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """(up, down) by the diffusers name of the layer."""
        named = zip(self.names, self.layers, strict=True)
        return {name: (layer.up.detach(), layer.down.detach()) for name, layer in named}

    def remove(self) -> None:
        """Take the hooks off: the UNet is the plain one again."""
        for handle in self.handles:
            handle.remove()
