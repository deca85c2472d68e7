"""The standalone host: methods of the table on a diffusers pipeline, from checked settings to finished pictures."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from ..core.bases import RGBA_VAE
from ..core.codec.codec import TransparencyCodec, VaeLatent, to_vae_space
from ..core.errors import WeightsError
from ..core.files.codec_parts import DECODER, ENCODER
from ..core.files.layer_files import METHOD
from ..core.files.weights import keep_latest, stamp
from ..core.memory import release
from ..core.methods import Method
from ..core.offsets.install import parameter_shapes
from ..core.picture.alpha import composite_on_grey, from_tensor
from ..core.picture.alpha_care import AlphaCare, care_for
from ..core.picture.hidden import with_hidden_colours
from ..diagnosis.base_prints import drift_of
from ..diagnosis.facts import Facts
from ..files.demo_folder import CONTROLNET
from ..files.downloads import LayerFiles
from ..files.layer_catalogue import Catalogue, Loaded
from ..files.layer_choice import Chooser, Files
from ..unet.ldm_keys import unet_modules
from ..unet.method_kinds import OnUnet, read_method
from .controlnet_files import checked_file, read_controlnet
from .controlnet_run import control_on_unet, control_picture
from .diagnosing import diagnosis_of
from .families import family_of, image_to_image
from .full_memory import out_of_memory_advice
from .given_images import GivenImages, given_layers
from .infotext import parameters_text
from .pictures import Picture, Pictures, Watchers
from .run_plan import Job, Plan, make_plan
from .samplers import build_scheduler, sampler_label
from .settings import GenerateSettings
from .transparency import Codecs
from .unet_method import method_on_unet
from .vocabulary import unknown_word_hints

if TYPE_CHECKING:
    from diffusers import ModelMixin, UNet2DConditionModel

logger = logging.getLogger(__name__)

SAMPLING_SHARE = 0.8  # of the work on a picture, for the progress bar; the rest is decoding


OWN_FILES = {METHOD: "layer_file", DECODER: "decoder_file", ENCODER: "encoder_file"}  # settings by part


class Stopped(Exception):
    """Somebody asked to stop; never leaves the host."""


class DiffusersHost:
    """A loaded pipeline and what belongs to it; `run` may be called again and again, the model stays as it was."""

    def __init__(self, pipeline: Any, base: str, files: LayerFiles, name: str = "model", captions: Sequence[str] = ()):
        self.pipeline, self.base, self.files = pipeline, base, files
        self.family = family_of(base)
        self.name, self.captions = name, tuple(captions)
        self._kept: dict[str, tuple[tuple, Any]] = {}
        self.codecs = Codecs(pipeline, base, lambda: self.network.dtype)
        self.catalogue = Catalogue()
        pipeline.set_progress_bar_config(disable=True)
        vae = pipeline.vae
        if vae.dtype == torch.float16 and vae.config.force_upcast:  # SDXL's VAE overflows in float16
            vae.to(torch.float32)

    def run(self, settings: GenerateSettings, watchers: Watchers | None = None) -> Pictures:
        """Pictures of validated settings; all typed errors come before the first sampling step."""
        watchers = watchers or Watchers()
        watchers.report(0.0, "preparing")
        plan = make_plan(settings, self.base, self.pipeline)
        pictures = Pictures(notes=[*plan.notes, *self.hints(plan.texts)], given=given_layers(plan))
        plan, files = self.with_own_files(plan, pictures.notes)
        with torch.inference_mode(False), torch.no_grad(), out_of_memory_advice(self.pipeline.device):
            self._check_later_steps(plan, files)
            self._paint(plan, watchers, files, pictures)
        pictures.sort()
        pictures.diagnosis = diagnosis_of(self.facts, plan, pictures, self.drift)
        pictures.notes += [pictures.diagnosis.text] if pictures.diagnosis else []
        return pictures

    @property
    def facts(self) -> Facts:
        """What a diagnosis should know of the model."""
        prediction = self.pipeline.scheduler.config.get("prediction_type", "")
        return Facts(self.base, prediction=prediction, checkpoint=self.name)

    def drift(self) -> float | None:
        """How far the model is from its base, where a print of that is at hand."""
        return drift_of(unet_modules(self.network), self.base, self.files.search_folders())

    @property
    def network(self) -> ModelMixin:
        """What denoises: a UNet, or Flux's transformer."""
        return self.family.network(self.pipeline)

    @property
    def unet(self) -> UNet2DConditionModel:
        """What denoises, of a base that has a UNet."""
        return self.family.network(self.pipeline)

    def hints(self, prompts: Sequence[str]) -> list[str]:
        """Hints for words that the demo model does not know; none for other models."""
        return unknown_word_hints(prompts, self.captions) if self.captions else []

    def _check_later_steps(self, plan: Plan, files: Files) -> None:
        """Errors in files of later steps are told before the first one begins, not after its work."""
        modules = unet_modules(self.network)
        for method in plan.course.later_methods:
            read_method(files.find(method.weights), modules, method)  # tensors are read when they are used
            self.ready_codec(files, method)

    def _paint(self, plan: Plan, watchers: Watchers, files: Files, pictures: Pictures) -> None:
        """All sets, step by step, so that each method's weights are read and put on the UNet once."""
        wanted = 0
        try:
            for step in range(plan.course.steps):
                if step:
                    self._kept.pop("method", None)  # before what the next one needs is asked for
                    release(self.pipeline.device)
                run = _Run(self, plan.at_step(step, pictures.made), watchers, files)
                wanted = plan.course.steps * sum(map(len, run.jobs))
                self._paint_step(run, pictures)
        except Stopped:
            pictures.stopped = True
            pictures.notes.append(f"stopped after {len(pictures)} of {wanted} pictures")
        watchers.report(1.0, "stopped" if pictures.stopped else "done")

    def _paint_step(self, run: _Run, pictures: Pictures) -> None:
        with run.ready():
            for number, job in enumerate(run.jobs):
                run.begin(number)
                for picture in run.paint(job):
                    pictures.items.append(picture)
                    run.watchers.deliver(picture)

    def with_own_files(self, plan: Plan, notes: list[str]) -> tuple[Plan, Files]:
        """The plan with the files that its settings name, told as an infotext tells them, and where all files are."""
        wishes = {part: getattr(plan.settings, name) for part, name in OWN_FILES.items()}
        if plan.method is None or not any(wishes.values()):
            return plan, self.files
        loaded = Loaded(self.base, parameter_shapes(unet_modules(self.network)))
        method, files = Chooser(self.catalogue, self.files, loaded, notes.append).choose(wishes, plan.method)
        told = {name: files.told.get(part) for part, name in OWN_FILES.items()}
        return replace(plan, method=method, settings=replace(plan.settings, **told)), files

    def method_weights(self, method: Method, files: Files | None = None) -> Any:
        """The weights of a method, checked against the UNet; read once while pictures of this method are painted."""
        path = (files or self.files).find(method.weights)
        modules, key = unet_modules(self.network), (stamp(path), method.id, method.kind)
        return keep_latest(self._kept, "method", key, lambda: read_method(path, modules, method))

    def decoder_of(self, files: Files) -> TransparencyCodec:
        """The transparency decoder among files, kept until another is wanted."""
        return self.codecs.decoder(files)

    def encoder_of(self, files: Files) -> TransparencyCodec:
        """The transparency encoder among files with its rule, kept until another is wanted; float32."""
        return self.codecs.encoder(files)

    def ready_codec(self, files: Files, method: Method) -> None:
        """Read what the method's pictures are decoded by, so that errors come before the sampling."""
        if method.codec.kind == RGBA_VAE:
            self.codecs.rgba_vae(files, method.decoder)
        elif method.transparent_frames:
            self.decoder_of(files)

    def encoded_rgba(self, rgba: torch.Tensor, files: Files, method: Method) -> VaeLatent:
        """RGBA [B,4,H,W] in [0,1] as a latent with its transparency, as the method has it."""
        if method.codec.kind == RGBA_VAE:
            return self.codecs.rgba_vae(files, method.encoder).encode(rgba)
        return self.encoder_of(files).encode(rgba, self.posterior)

    def controlnet_of(self, path: str | Path | None) -> Any:
        """The ControlNet of a file, or the demo model's own; kept until another is wanted.

        WeightsError where it has none.
        """
        path = self.files.present(CONTROLNET) if path is None else checked_file(path)
        if path is None:
            raise WeightsError(f"no {CONTROLNET}", "the demo model's own ControlNet", "name one with --controlnet FILE")
        return keep_latest(self._kept, "controlnet", stamp(path), lambda: read_controlnet(path, self.unet))

    @property
    def decoder(self) -> TransparencyCodec:
        """The usual transparency decoder of this base."""
        return self.decoder_of(self.files)

    @property
    def encoder(self) -> TransparencyCodec:
        """The usual transparency encoder of this base with its rule; float32."""
        return self.encoder_of(self.files)

    @property
    def scale(self) -> tuple[float, float]:
        """Scale and shift between the VAE's latents and the sampler's."""
        config = self.pipeline.vae.config
        return config.scaling_factor, getattr(config, "shift_factor", None) or 0.0

    def posterior(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and deviation, VAE space [B,C,h,w] float32, of an image [B,3,H,W] in [-1,1]."""
        vae = self.pipeline.vae
        distribution = vae.encode(image.to(vae.device, vae.dtype)).latent_dist
        return distribution.mean.float(), distribution.std.float()

    def pixels(self, latent: VaeLatent) -> torch.Tensor:
        """Decoded pixels [B,3,H,W] float32, about [0,1], one picture at a time to save memory."""
        vae = self.pipeline.vae
        rows = latent.values.to(vae.device, vae.dtype).split(1)
        decoded = torch.cat([vae.decode(row, return_dict=False)[0].float() for row in rows])
        return decoded.div(2).add(0.5)


class _Run:
    """The state of one run: plan, watchers, conditions, and where in the work it is."""

    def __init__(self, host: DiffusersHost, plan: Plan, watchers: Watchers, files: Files):
        self.host, self.plan, self.watchers, self.files = host, plan, watchers, files
        self.jobs = plan.jobs()
        self.number = 0  # of the present job
        self.start: torch.Tensor | None = None  # sampler latent of the image to start from
        self.images_in = GivenImages(host, plan, files)
        self.on_unet: OnUnet | None = None

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Weights read, conditions encoded, sampler and method in place; all undone at the end."""
        plan, pipeline = self.plan, self.host.pipeline
        self.report(0.0, "reading the method's files")
        control = self.control()
        context = nullcontext()
        if plan.method is not None:
            weights = self.host.method_weights(plan.method, self.files)
            self.host.ready_codec(self.files, plan.method)  # fails now rather than after the sampling
            strengths = (plan.settings.weight, plan.settings.stop_at)
            stop = self.host.family.stop(pipeline, plan.settings.stop_at, plan.size)
            conditions = self.images_in.conditions(self.jobs[0])
            context = method_on_unet(plan.method, weights, self.host.network, strengths, conditions, stop)
        self.start = self.images_in.start()
        own_scheduler = pipeline.scheduler
        if plan.settings.sampler is not None:
            pipeline.scheduler = build_scheduler(plan.settings.sampler, own_scheduler.config)
        self.sampler_label = sampler_label(pipeline.scheduler, plan.settings.sampler)
        try:
            with context as self.on_unet, control:
                yield
        finally:
            pipeline.scheduler = own_scheduler

    def control(self) -> AbstractContextManager:
        """The ControlNet on the UNet while it is entered; nothing where none is wanted."""
        settings, image = self.plan.settings, self.plan.images.get("control_image")
        if image is None:
            return nullcontext()
        picture = control_picture(image, self.plan.size, settings.resize_mode, settings.draw_lines)
        network = self.host.controlnet_of(settings.controlnet)
        return control_on_unet(network, self.host.unet, picture, settings.control_strength)

    def begin(self, number: int) -> None:
        """Go on to the job of this number; the method sees the layers of its sets."""
        self.number = number
        if number and self.plan.made:
            latents = self.images_in.conditions(self.jobs[number]).concat
            assert self.on_unet is not None and self.on_unet.see is not None and latents is not None  # as rows have it
            self.on_unet.see(latents)

    def paint(self, job: Job) -> list[Picture]:
        """One passage: sampling, VAE, transparency."""
        self.check_stop()
        latent = to_vae_space(self.sample(job).float(), *self.host.scale)
        self.report(SAMPLING_SHARE, "decoding")
        images = self.images(latent)
        return [self.picture(job, row, image) for row, image in enumerate(images)]

    def sample(self, job: Job) -> torch.Tensor:
        """Sampler latents [rows,C,h,w] at the end of the sampling."""
        settings, pipeline = self.plan.settings, self.host.pipeline
        height, width = self.plan.size
        family = self.host.family
        arguments: dict[str, Any] = {"height": height, "width": width, **family.arguments(pipeline, settings, len(job))}
        steps = settings.steps
        if self.start is not None:
            steps = family.image_steps(settings)
            if steps < 1:  # nothing to sample: the picture as the codec gives it back
                return self.start.repeat(len(job), 1, 1, 1)
            start = self.start.to(pipeline.device, self.host.network.dtype).repeat(len(job), 1, 1, 1)
            pipeline, arguments = image_to_image(pipeline, arguments | {"image": start, "strength": settings.denoise})
        painted = pipeline(
            prompt=list(job.prompts),
            num_inference_steps=settings.steps,
            # on the CPU, so that a seed gives the same noise on every device
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in job.seeds],
            output_type="latent",
            callback_on_step_end=self.step_callback(steps),
            **arguments,
        ).images
        return family.latents(pipeline, painted, self.plan.size)

    def step_callback(self, steps: int) -> Callable[[Any, int, Any, dict], dict]:
        """Reports every step and stops when asked to."""

        def callback(_pipeline: Any, step: int, _timestep: Any, tensors: dict) -> dict:
            self.check_stop()
            self.report(SAMPLING_SHARE * min(1.0, (step + 1) / steps), "sampling")
            return tensors

        return callback

    def images(self, latent: VaeLatent) -> list[Image.Image]:
        """PIL images of all rows: RGBA for the transparent frames, RGB for the others."""
        method, codecs = self.plan.method, self.host.codecs
        if method is not None and method.codec.kind == RGBA_VAE:
            rgba = codecs.rgba_vae(self.files, method.decoder).decode(latent, self.decode_progress)
            return self.layers(rgba, composite_on_grey(rgba))
        pixels = self.host.pixels(latent)
        plain = pixels.clamp(0, 1)
        images = [Image.fromarray(array) for array in _bytes(plain)]
        rows = [row for row in range(len(images)) if method is not None and method.is_transparent(row)]
        if rows:
            part, codec = VaeLatent(latent.values[rows]), self.host.decoder_of(self.files)
            rgba = codec.decode(
                codec.seen_pixels(pixels[rows]), part, passes=self.plan.settings.passes, progress=self.decode_progress
            )
            for row, image in zip(rows, self.layers(rgba, plain[rows]), strict=True):
                images[row] = image
        return images

    def layers(self, rgba: torch.Tensor, plain: torch.Tensor) -> list[Image.Image]:
        """RGBA [B,4,H,W] as pictures, cared for by what the VAE shows [B,3,H,W]."""
        settings = self.plan.settings
        rgba = care_for(rgba, plain.to(rgba), AlphaCare(clear_haze=settings.clear_haze))
        return [with_hidden_colours(image, settings.hidden_colours) for image in from_tensor(rgba)]

    def decode_progress(self, done: int, total: int) -> None:
        """Progress of the transparency decoder."""
        self.check_stop()
        self.report(SAMPLING_SHARE + (1 - SAMPLING_SHARE) * done / total, "decoding transparency")

    def picture(self, job: Job, row: int, image: Image.Image) -> Picture:
        """A finished picture with its place and its text."""
        method = self.plan.method
        frame = method.frame_of(row) if method is not None and self.plan.named_frames else ""
        place, own = row // self.plan.frames, job.prompts[row]
        group = job.first_group + place
        text = parameters_text(self.plan, job.prompt, group, self.sampler_label, self.host.name)
        number, seeds = job.first_set + place, (self.plan.set_seed(group), self.plan.layer_seed(frame, group))
        return Picture(image, job.prompt or own, seeds[0], group, frame, text, number, own, seeds[1])

    def check_stop(self) -> None:
        """Leaves the run when somebody wants it to stop."""
        if self.watchers.stopping():
            raise Stopped

    def report(self, share: float, text: str) -> None:
        """Tell the watchers; `share` in [0,1] is of the present job, a job of one step of a chain."""
        plan, steps, jobs = self.plan, self.plan.course.steps, len(self.jobs)
        done = (plan.step * jobs + self.number + share) / (steps * jobs)
        if steps > 1 and plan.method is not None:
            text = f"{' and '.join(plan.method.frames)}, step {plan.step + 1} of {steps}: {text}"
        self.watchers.report(done, text)


def _bytes(pixels: torch.Tensor) -> np.ndarray:
    """[B,3,H,W] in [0,1] -> uint8 [B,H,W,3]."""
    return (pixels.permute(0, 2, 3, 1) * 255).round().byte().cpu().numpy()
