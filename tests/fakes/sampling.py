"""Samplers: Euler over sigmas and DDIM over timesteps, the taking over of interrupts, noise by seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fakes.webui import InterruptedException

STEPS = 1000


def alphas_cumprod() -> torch.Tensor:
    """SD's noise schedule [1000]."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, STEPS, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


SIGMAS = ((1 - alphas_cumprod()) / alphas_cumprod()) ** 0.5


def timestep_of(sigma: torch.Tensor) -> torch.Tensor:
    """Timestep, between whole ones too, of noise levels [B]."""
    logarithms = SIGMAS.log()
    place = torch.searchsorted(logarithms, sigma.log().contiguous()).clamp(1, STEPS - 1)
    low, high = logarithms[place - 1], logarithms[place]
    return place - 1 + ((sigma.log() - low) / (high - low)).clamp(0, 1)


def sigmas_for(steps: int) -> torch.Tensor:
    """Falling noise levels [steps + 1], the last 0."""
    places = torch.linspace(STEPS - 1, 0, steps)
    low = places.long().clamp(max=STEPS - 2)
    logarithms = SIGMAS.log()
    levels = logarithms[low].lerp(logarithms[low + 1], places - low).exp()
    return torch.cat([levels, levels.new_zeros(1)])


class Schedule:
    """SD's levels, and noise added at one."""

    @staticmethod
    def levels(steps: int) -> torch.Tensor:
        """Falling noise levels [steps + 1], the last 0."""
        return sigmas_for(steps)

    @staticmethod
    def noisy(latent: torch.Tensor, noise: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """A latent with noise."""
        return latent + noise * level


class ImageRNG:
    """Noise of each picture from its own seed."""

    def __init__(self, shape: tuple[int, ...], seeds: list[int]):
        self.shape, self.generators = shape, [torch.Generator().manual_seed(seed) for seed in seeds]

    def next(self) -> torch.Tensor:
        """The next noise [B,*shape]."""
        return torch.stack([torch.randn(self.shape, generator=generator) for generator in self.generators])


def setup_img2img_steps(p: Any, steps: int | None) -> tuple[int, int]:
    """Steps of the whole schedule, and how many of them are made."""
    steps = steps or p.steps
    return steps, max(1, int(min(p.denoising_strength, 0.999) * steps)) - 1


class Sampler:
    """What both kinds of samplers share; made for one pass, or for all batches of image to image."""

    def __init__(self, webui: Any, denoiser: Any):
        self.webui, self.p, self.last_latent = webui, None, None
        self.model_wrap_cfg, self.sampler_extra_args = denoiser, {}
        denoiser.sampler = self

    def launch_sampling(self, steps: int, func: Callable[[], Any]) -> Any:
        """Run the sampling; its last latents where it was interrupted."""
        self.model_wrap_cfg.steps = self.model_wrap_cfg.total_steps = steps
        self.webui.state.sampling_steps, self.webui.state.sampling_step = steps, 0
        try:
            return func()
        except InterruptedException:
            return self.last_latent

    def callback_state(self, step: int) -> None:
        """After each model call."""
        self.webui.state.sampling_step = step
        action = self.webui.engine.at_step.get(step)
        if action is not None:
            action(self.p)

    def initialize(self, p: Any, conds: tuple[Any, Any]) -> None:
        """Bring the denoiser up for `p`."""
        denoiser, self.p = self.model_wrap_cfg, p
        denoiser.p, denoiser.step = p, 0
        denoiser.mask, denoiser.nmask = getattr(p, "mask", None), getattr(p, "nmask", None)
        self.sampler_extra_args = {"cond": conds[0], "uncond": conds[1], "cond_scale": p.cfg_scale}

    def denoise(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """One call of the guided model."""
        return self.model_wrap_cfg(x, level.expand(len(x)), **self.sampler_extra_args)


class Euler(Sampler):
    """k-diffusion's sampler; the denoiser gives a picture without noise."""

    @property
    def _schedule(self) -> type[Schedule]:
        return getattr(self.webui.sd_model, "schedule", Schedule)

    def get_sigmas(self, p: Any, steps: int) -> torch.Tensor:
        """Noise levels of a job."""
        automatic = getattr(p, "scheduler", "Simple") == "Automatic"
        return getattr(self._schedule, "automatic" if automatic else "levels", self._schedule.levels)(steps)

    def sample(self, p: Any, x: torch.Tensor, c: Any, uc: Any, steps: int | None = None) -> torch.Tensor:
        sigmas = self.get_sigmas(p, steps or p.steps)
        with self.webui.engine.loaded(x):
            x = x * sigmas[0]
            self.last_latent = x
            self.initialize(p, (c, uc))
            return self.launch_sampling(len(sigmas) - 1, lambda: self._euler(x, sigmas))

    def sample_img2img(self, p: Any, x: torch.Tensor, noise: torch.Tensor, conds: Any, steps: int | None = None):
        steps, made = setup_img2img_steps(p, steps)
        sigmas = self.get_sigmas(p, steps)[steps - made - 1 :]
        with self.webui.engine.loaded(x):
            noisy = self._schedule.noisy(x, noise, sigmas[0])
            self.initialize(p, conds)
            self.model_wrap_cfg.init_latent = self.last_latent = x
            return self.launch_sampling(made + 1, lambda: self._euler(noisy, sigmas))

    def _euler(self, x: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
        for step in range(len(sigmas) - 1):
            denoised = self.denoise(x, sigmas[step : step + 1])
            self.callback_state(step)
            x = x + (x - denoised) / sigmas[step] * (sigmas[step + 1] - sigmas[step])
        return x


class Ddim(Sampler):
    """A sampler that counts in timesteps; the denoiser gives the noise."""

    def sample(self, p: Any, x: torch.Tensor, c: Any, uc: Any, steps: int | None = None) -> torch.Tensor:
        times = self._times(steps or p.steps)
        with self.webui.engine.loaded(x):
            self.last_latent = x
            self.initialize(p, (c, uc))
            return self.launch_sampling(len(times), lambda: self._ddim(x, times))

    def sample_img2img(self, p: Any, x: torch.Tensor, noise: torch.Tensor, conds: Any, steps: int | None = None):
        steps, made = setup_img2img_steps(p, steps)
        times = self._times(steps)[-(made + 1) :]
        with self.webui.engine.loaded(x):
            alpha = alphas_cumprod()[times[0]]
            noisy = x * alpha.sqrt() + noise * (1 - alpha).sqrt()
            self.initialize(p, conds)
            self.model_wrap_cfg.init_latent = self.last_latent = x
            return self.launch_sampling(made + 1, lambda: self._ddim(noisy, times))

    def _times(self, steps: int) -> list[int]:
        return [min(place + 1, STEPS - 1) for place in range(0, STEPS, STEPS // steps)][::-1][:steps]

    def _ddim(self, x: torch.Tensor, times: list[int]) -> torch.Tensor:
        alphas = alphas_cumprod()
        for step, time in enumerate(times):
            noise = self.denoise(x, torch.tensor([float(time)]))
            self.callback_state(step)
            clean = (x - (1 - alphas[time]).sqrt() * noise) / alphas[time].sqrt()
            following = alphas[times[step + 1]] if step + 1 < len(times) else torch.tensor(1.0)
            x = following.sqrt() * clean + (1 - following).sqrt() * noise
        return x


SAMPLERS = {"Euler": Euler, "DDIM": Ddim}
