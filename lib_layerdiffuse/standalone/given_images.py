"""What a run sees of images: those that the user gives, and the layers that earlier steps of a chain made."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from ..core.codec.codec import VaeLatent
from ..core.methods import Method
from ..core.picture.alpha import from_tensor, rgba_array
from ..files.layer_choice import Files
from ..unet.images import on_grey, with_alpha
from ..unet.method_kinds import Conditions
from .run_plan import Job, Plan


class Encodes(Protocol):
    """As much of a host as brings images into latents."""

    pipeline: Any

    @property
    def scale(self) -> tuple[float, float]:
        """Scale and shift between the VAE's latents and the sampler's."""
        ...

    def posterior(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and deviation, VAE space [B,C,h,w] float32, of an image [B,3,H,W] in [-1,1]."""
        ...

    def encoded_rgba(self, rgba: torch.Tensor, files: Files, method: Method) -> VaeLatent:
        """RGBA [B,4,H,W] in [0,1] as a latent with its transparency."""
        ...


class GivenImages:
    """The images of one step of a plan, as a host's networks see them."""

    def __init__(self, host: Encodes, plan: Plan, files: Files):
        self.host, self.plan, self.files = host, plan, files
        self._latents: dict[str, torch.Tensor] = {}  # of the user's images

    def conditions(self, job: Job) -> Conditions:
        """What the method sees while it paints the sets of a job."""
        method = self.plan.method
        if method is None:
            return Conditions()
        control = None if method.control is None else self.seen(method.control).to(self.host.pipeline.device)
        latents = [self.latents(name, job) for name in method.concat]
        rows = max(map(len, latents), default=0)
        return Conditions(torch.cat([part.expand(rows, -1, -1, -1) for part in latents], 1) if rows else None, control)

    def latents(self, name: str, job: Job) -> torch.Tensor:
        """A layer in sampler scale: the user's [1,C,h,w], else what was made for each set of a job."""
        made = self.plan.made.get(name)
        if made is not None:
            sets = range(job.first_set, job.first_set + len(job) // self.plan.frames)
            return torch.cat([self.encoded(self.on_grey(rgba_array(made[number]))) for number in sets])
        if name not in self._latents:
            self._latents[name] = self.encoded(self.seen(name))
        return self._latents[name]

    def start(self) -> torch.Tensor | None:
        """Sampler latent [1,C,h,w] of the image to start from, with its transparency where the method makes some."""
        image, plan = self.plan.images.get("init"), self.plan
        if image is None:
            return None
        if plan.method is None or not plan.method.transparent_frames:
            return self.encoded(self.seen("init"))
        rgba = with_alpha(image, *plan.size, plan.settings.resize_mode)
        return self.host.encoded_rgba(rgba, self.files, plan.method).to_sampler_space(*self.host.scale)

    def encoded(self, image: torch.Tensor) -> torch.Tensor:
        """The latent of an image [1,3,H,W] in [-1,1], in sampler scale."""
        return VaeLatent(self.host.posterior(image)[0]).to_sampler_space(*self.host.scale)

    def seen(self, name: str) -> torch.Tensor:
        """A user's image at the size of the pictures, on grey, [1,3,H,W] in [-1,1]."""
        return self.on_grey(self.plan.images[name])

    def on_grey(self, rgba: np.ndarray) -> torch.Tensor:
        """An image uint8 [H,W,4] at the size of the pictures, on grey, [1,3,H,W] in [-1,1]."""
        return on_grey(rgba, *self.plan.size, self.plan.settings.resize_mode)


def given_layers(plan: Plan) -> dict[str, Image.Image]:
    """The user's layers at the size of the pictures, RGBA."""
    shown = {name: image for name, image in plan.images.items() if name in plan.course.images}
    mode = plan.settings.resize_mode
    return {name: from_tensor(with_alpha(image, *plan.size, mode))[0] for name, image in shown.items()}
