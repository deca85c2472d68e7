"""Hires fix with a pixel upscaler, and the gallery's upscale button: the second pass starts with transparency.

The WebUI decodes the first pass, enlarges the opaque pixels and encodes them, by which the latent's transparency is
lost. Here it is given the layer's own colours, and what it encodes is adjusted for the layer's alpha, as in img2img.
Latent upscalers carry the transparency by themselves.
"""

from __future__ import annotations

import functools
import logging
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from PIL import Image

from ...core.codec.codec import TransparencyCodec
from ...core.errors import InputError
from ...core.picture.alpha import rgba_array, to_tensor
from ..host.host import host_of
from ..host.modules import host_module, option
from ..host.vae import adjusted_posterior
from ..wrapping import until_removed
from .init_images import flattened, offset_at, resized
from .pictures import decode_one, ready_decoder
from .run import Run, RunPart

logger = logging.getLogger(__name__)


class SecondPass(RunPart):
    """What the second pass of a job begins with: the layers of the first, or the picture that the user chose."""

    def __init__(self, run: Run, told_seeds: Callable[[], list[int]]):
        super().__init__(run)
        self._told_seeds = weakref.WeakMethod(told_seeds)  # those of the batch at hand, by the job that has this part
        self.codec: TransparencyCodec  # read by `install`, before anything here is called
        self._wrapped: list[Callable[[], None]] = []  # each undoes one
        self.layers: list[Image.Image | None] = []  # of the batch at hand; None where a picture stays opaque
        self._first: torch.Tensor | None = None  # the first pass's latents, where nobody has decoded them
        self._told = 0  # how many of its pictures the WebUI has saved

    def install(self) -> None:
        """Take part in the job's second pass, if it has one that could lose transparency."""
        run = self.run
        if not getattr(self.p, "enable_hr", False):
            return
        self._wrap("sample_hr_pass", self._name_by_told_seeds)
        if not run.method.transparent_frames or not run.arguments.weight:
            return
        if option("sd_vae_encode_method", "Full") != "Full":
            run.request.note("pixel upscalers lose transparency here: the setting VAE encode method must be Full")
            return
        self.codec = run.request.networks.encoder(run.files, run.method.base)
        if getattr(self.p, "firstpass_image", None) is not None:
            self._take_picture()
        self._wrap("sample_hr_pass", self._second_pass)

    def _take_picture(self) -> None:
        """The gallery's upscale button: a picture in the place of the first pass."""
        if len(self.run.method.frames) > 1:
            raise InputError(
                f"one picture to upscale for {len(self.run.method.frames)} frames",
                "a first pass of this job",
                "tick Hires. fix and generate, or upscale the layer in img2img or Extras",
            )
        picture = Image.fromarray(rgba_array(self.p.firstpass_image))
        self.run.request.changes.set("firstpass_image", flattened(picture, self.codec))
        self.layers = [picture]
        self._wrap("sample", functools.partial(self._sample_given, picture.size))

    def _wrap(self, name: str, around: Callable[..., Any]) -> None:
        """Let the method of this `p` be `around(original, ...)`; `remove` takes it off."""
        self._wrapped.append(until_removed(self.p, name, around))

    def remove(self) -> None:
        """Give `p` its own methods back."""
        while self._wrapped:
            self._wrapped.pop()()

    def _name_by_told_seeds(
        self, original: Callable[..., Any], samples: Any, decoded: Any, seeds: Any, *others: Any, **named: Any
    ) -> Any:
        """The WebUI names what it saves of the first pass by these seeds, and draws its noise from `p`'s own."""
        told_seeds = self._told_seeds()
        told = told_seeds() if told_seeds is not None else []
        return original(samples, decoded, told or seeds, *others, **named)

    def _sample_given(self, size: tuple[int, int], original: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """A latent upscaler has the chosen picture encoded at its own size, before the second pass."""
        if getattr(self.p, "latent_scale_mode", None) is None:
            return original(*arguments, **named)
        with self._adjusting(size):
            return original(*arguments, **named)

    def next_first(self, image: Image.Image) -> tuple[str, Image.Image] | None:
        """The layer of the first pass's next picture, which the WebUI is about to save opaque and without its name."""
        place, self._told, run = self._told, self._told + 1, self.run
        layer = self.layers[place] if place < len(self.layers) else None
        if layer is None and self._first is not None and place < len(self._first) and run.method.is_transparent(place):
            opaque = to_tensor(image)[:, :3]
            layer = decode_one(run, ready_decoder(run), (opaque, self._first[place : place + 1]))
        if layer is None and len(run.method.frames) == 1:
            return None
        return run.method.frame_of(place), layer or image

    def _second_pass(
        self, original: Callable[..., Any], samples: torch.Tensor | None, decoded: torch.Tensor | None, *others: Any,
        **named: Any,
    ) -> Any:  # fmt: skip
        self._told = 0
        if self.run.request.failed or host_module("shared").state.interrupted:
            return original(samples, decoded, *others, **named)
        if decoded is None:
            self._first = samples
            try:
                return original(samples, decoded, *others, **named)
            finally:
                self._first = None
        if samples is not None:
            try:
                decoded = self._take_layers(samples, decoded)
            except Exception as error:  # the first pass was not for nothing: the WebUI goes on as it would without us
                logger.exception("the first pass could not be decoded")
                self.run.request.note(f"the second pass starts without the first one's transparency: {error}")
                return original(samples, decoded, *others, **named)
        with self._adjusting((self.p.hr_upscale_to_x, self.p.hr_upscale_to_y)):
            return original(samples, decoded, *others, **named)

    def _take_layers(self, samples: torch.Tensor, decoded: torch.Tensor) -> torch.Tensor:
        """Decode the first pass [B,4,h,w] with its pixels [B,3,H,W] in [-1,1]; the pixels that are to be enlarged."""
        run = self.run
        codec = ready_decoder(run)
        pixels = list(decoded)
        self.layers = [None] * len(pixels)
        for place, picture in enumerate(pixels):
            if run.method.is_transparent(place):
                opaque = (picture[None] / 2 + 0.5).clamp(0, 1)
                self.layers[place] = layer = decode_one(run, codec, (opaque, samples[place : place + 1]))
                if layer is not None:
                    pixels[place] = self.codec.seen(to_tensor(layer))[0].to(picture)
        return torch.stack(pixels)

    def _adjusting(self, size: tuple[int, int]) -> ExitStack:
        """A context in which the pictures of the batch, encoded at `size` (width, height), get their transparency."""
        codec, stack = self.codec.to(self.run.host.device), ExitStack()
        waiting = list(self.layers)

        def adjust(mean: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
            rows = [waiting.pop(0) for _ in range(min(len(mean), len(waiting)))]
            if not waiting:  # what else is encoded is none of ours
                stack.close()
            adjusted = mean.clone()
            for row, layer in enumerate(rows):
                if layer is not None:
                    offset = offset_at(codec, resized(layer, 0, *size), mean.shape[-2:]).to(mean.device)
                    adjusted[row : row + 1] = codec.adjusted(mean[row : row + 1], deviation[row : row + 1], offset)
            return adjusted

        stack.enter_context(adjusted_posterior(host_of(self.p.sd_model).vae, adjust))
        return stack
