"""What the engines of AUTOMATIC1111 and Forge have in common: how steps begin, and a checkpoint that takes over."""

from __future__ import annotations

from typing import Any

from fakes.sampling import SAMPLERS
from fakes.webui import InterruptedException


class Denoiser:
    """Guidance: what other code reads of it, and how each step begins."""

    step, steps, total_steps = 0, 0, 0
    sampler = p = mask = nmask = init_latent = None

    def __init__(self, engine: Any, timesteps: bool):
        self.engine, self.webui, self.timesteps = engine, engine.webui, timesteps

    def begun(self, cond: Any, uncond: Any) -> tuple[Any, Any]:
        """The conditionings of a step, which are others where a refiner takes over; none once a job is interrupted."""
        if self.webui.state.interrupted or self.webui.state.skipped:
            raise InterruptedException
        if self.engine.apply_refiner(self):
            return self.sampler.sampler_extra_args["cond"], self.sampler.sampler_extra_args["uncond"]
        return cond, uncond


class Engine:
    """Base of the engines."""

    denoiser: type[Denoiser]

    def create_sampler(self, name: str) -> Any:
        """A sampler with its denoiser."""
        return SAMPLERS[name](self.webui, self.denoiser(self, timesteps=name == "DDIM"))

    def apply_refiner(self, denoiser: Denoiser) -> bool:
        """Switch the checkpoint in the midst of a pass."""
        p = denoiser.p
        if p.refiner is None or self.sd_model.sd_checkpoint_info == p.refiner:
            return False
        if denoiser.step / denoiser.total_steps < p.refiner_switch_at:
            return False
        self.reload_model_weights(p.refiner)
        self.prepare()
        p.setup_conds()
        denoiser.sampler.sampler_extra_args["cond"], denoiser.sampler.sampler_extra_args["uncond"] = p.get_conds()
        return True

    def prepare(self) -> None:
        """Make a loaded model ready to sample."""
