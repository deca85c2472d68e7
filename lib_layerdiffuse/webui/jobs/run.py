"""A job at work, checked against the loaded model: from given pictures to latents, with a method on the UNet."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from ...core.bases import NETWORKS
from ...core.errors import InputError, LayerDiffuseError
from ...core.methods import Method, check_base
from ...core.offsets.install import parameter_shapes
from ...core.picture.alpha import rgba_array
from ...files.layer_catalogue import Loaded
from ...files.layer_choice import OwnFiles
from ...form.arguments import LayerArguments, to_infotext
from ...form.frames import FRAMES
from ...form.ways import Way
from ...unet.images import on_grey
from ...unet.method_kinds import Conditions, needed_bytes
from ..chains.chain_run import ChainRun
from ..host.host import WebuiHost, host_of
from ..host.modules import host_module
from ..host.unet_pass import MethodRun, UnetPass
from ..layer_files import own_files
from .request import Request

logger = logging.getLogger(__name__)

VAE_FACTOR = 8


@dataclass(eq=False)
class Run:
    """One job at work; `host` is the model of the pass at hand."""

    request: Request
    method: Method
    arguments: LayerArguments
    files: OwnFiles
    host: WebuiHost
    weights: Any  # of the method, as its kind has them
    conditions: Conditions = field(default_factory=Conditions)
    latents: torch.Tensor | None = None  # of the pass that ended last, sampler's scale
    _at_work: UnetPass | None = None

    @property
    def p(self) -> Any:
        """What the WebUI processes."""
        return self.request.p

    def prepare_pass(self, latent: torch.Tensor) -> None:
        """For a pass at the size of [B,4,h,w]: encode what the method sees, and have the WebUI leave room."""
        self.host = host_of(self.p.sd_model)
        self._check_checkpoint()
        self.host.check_schedule(self.p)
        self.conditions = self._conditions(len(latent), *(side * VAE_FACTOR for side in latent.shape[-2:]))
        if self.arguments.weight:
            modules = dict(self.host.unet.named_modules())
            self.host.reserve(needed_bytes(self.method, self.weights, modules, self.host.device))

    def _check_checkpoint(self) -> None:
        """Whether a chain still has the checkpoint that it began with; a second pass may have one of its own."""
        if self.request.chain is not None and not getattr(self.p, "is_hr_pass", False):
            self.request.chain.check_checkpoint(checkpoint_name(self.p.sd_model))

    def _conditions(self, count: int, height: int, width: int) -> Conditions:
        def seen(picture: Any) -> torch.Tensor:
            pixels = on_grey(rgba_array(picture), height, width, self.arguments.resize_mode)
            return pixels.to(self.host.device)

        method, control = self.method, self.method.control
        latents = [[self.host.encode_mean(seen(one)) for one in self._given(frame, count)] for frame in method.concat]
        rows = max(map(len, latents), default=1)
        frames = [torch.cat(found).expand(rows, -1, -1, -1) for found in latents]
        return Conditions(
            torch.cat(frames, dim=1) if frames else None, seen(self._given(control, count)[0]) if control else None
        )

    def _given(self, frame: str, count: int) -> list[Any]:
        """The pictures of a frame: one for all, or those that the chain made for each of this batch."""
        chain, first = self.request.chain, self.p.iteration * self.p.batch_size
        made = chain.seen(frame, range(first, first + count)) if chain is not None else None
        return [getattr(self.arguments, FRAMES[frame].image)] if made is None else made

    def sample(self, run: Callable[[], Any]) -> Any:
        """The sampler call of one pass with the method on the UNet; the final latents, also after an interrupt."""
        settings = MethodRun(self.method, self.weights, self.arguments.weight, self.arguments.ending_step)
        try:
            with UnetPass(self.host, settings, self.conditions) as at_work:
                self._at_work = at_work
                self._note_others(at_work)
                self.latents = run()
                self._check_calls(at_work)
        except LayerDiffuseError as error:
            self.request.fail(error)
            return self.p.sampler.last_latent
        finally:
            self._at_work = None
        return self.latents

    def take_latents(self, latents: torch.Tensor) -> None:
        """The latents [B,C,h,w] of the pass that ended, in the sampler's scale, after the blending of masks."""
        self.latents = latents

    def _note_others(self, at_work: UnetPass) -> None:
        """Notes on what has no effect beside the method."""
        if at_work.suppressed:
            names = ", ".join(at_work.suppressed)
            self.request.note(f"attention sharing takes the place of self-attention by {names}, which has no effect")
        given = any(getattr(self.arguments, FRAMES[frame].prompt) for frame in self.method.extra_prompts)
        names = self.host.regional() if given else ()
        if names:
            own = f"{', '.join(names)}, which has prompts of its own for all layers"
            self.request.note(f"extra prompts may have no effect of their own beside {own}")

    def _check_calls(self, finished: UnetPass) -> None:
        if finished.steps and not finished.calls:
            raise InputError(
                "a sampling that never called the checkpoint's UNet",
                "the checkpoint's own UNet",
                "switch off what replaces or compiles it (TensorRT, torch.compile)",
            )

    def before_step(self, parameters: Any) -> None:
        """The WebUI's on_cfg_denoiser: follow a refiner, and tell the pass which rows are coming."""
        at_work = self._at_work
        if at_work is None:
            return
        try:
            at_work.follow(host_of(host_module("shared").sd_model))
            at_work.begin_step(parameters)
        except Exception as error:  # the WebUI would swallow it, and nobody would know
            logger.exception("LayerDiffuse could not follow this step")
            at_work.remove()
            self.request.note(f"from some step on the sampling ran without LayerDiffuse: {error}")
            self._at_work = None


class RunPart:
    """A part of a job that belongs to its run."""

    def __init__(self, run: Run):
        self.run = run

    @property
    def p(self) -> Any:
        """What the WebUI processes."""
        return self.run.p


def check_codec(method: Method) -> None:
    """InputError for a method that decodes by a VAE of its own, which WebUIs have no place for."""
    if method.codec.kind != NETWORKS:
        raise InputError(
            f"method {method.id}, which has a VAE of its own",
            "a method that a WebUI can decode",
            "choose another method, or use the standalone program for this one",
        )


def checked(request: Request) -> Run:
    """Check everything against the loaded model and read the files; typed errors before anything is touched."""
    networks, chain = request.networks, request.chain
    if chain is not None:  # first, as it explains why another base or architecture is there
        chain.check_checkpoint(checkpoint_name(request.p.sd_model))
    host = host_of(request.p.sd_model)
    base, modules = host.base, dict(host.unet.named_modules())
    wanted = request.arguments.method_row
    if request.trial is not None:
        request.trial.check_checkpoint(checkpoint_name(request.p.sd_model))
    if chain is not None:
        check_chain(request, chain, base)
    elif isinstance(wanted, Method):
        check_base(wanted, base)
    method, files, arguments = own_files.choose(request, Loaded(base, parameter_shapes(modules)))
    check_codec(method)
    host.check_unet()
    arguments.check()
    weights = networks.method(files, method, modules)
    if method.transparent_frames:
        networks.decoder(files, base)  # fails now rather than after the sampling
    request.p.extra_generation_params.update(to_infotext(arguments) if chain is None else chain.infotext(arguments))
    if chain is None or chain.is_first:
        note_unused(request, method if chain is None else chain.chain, arguments)
    if host.remark:
        request.note(host.remark, in_files=False)
    return Run(request, method, arguments, files, host, weights)


def check_chain(request: Request, chain: ChainRun, base: str) -> None:
    """Before the first step, all that could end a later one; InputError or BaseMismatchError for what could."""
    chain.check_base(base)
    if not chain.is_first:
        return
    chain.check_arguments()
    if getattr(request.p, "firstpass_image", None) is not None:
        raise InputError(
            f"one picture to upscale for the {len(chain.chain.makes)} layers of a chain",
            "a first pass of this job",
            "tick Hires. fix and generate, or upscale the layer in img2img or Extras",
        )
    for stem in chain.chain.stems:
        request.files.find(stem)


def checkpoint_name(sd_model: Any) -> str:
    """The name of a loaded checkpoint."""
    return str(getattr(getattr(sd_model, "sd_checkpoint_info", None), "name", ""))


def note_unused(request: Request, method: Way, arguments: LayerArguments) -> None:
    """A note on prompts of frames that the method does not have."""
    unused = [
        frame.prompt
        for frame in FRAMES.values()
        if getattr(arguments, frame.prompt) and frame.name not in method.extra_prompts
    ]
    if unused:
        request.note(f"{' and '.join(unused)}: not used by {method.id}", in_files=False)
