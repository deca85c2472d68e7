"""One generation of a WebUI with the box ticked: from checked arguments to latents with a method on the UNet.

A job lives on the WebUI's `p` while it is processed. All faults end in `fail`: the model is what it was, no picture
is given out as if it were a result, and the user reads why, once: under the gallery, in the API's info, in the log.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from ..core.errors import InputError, LayerDiffuseError, without_frames
from ..core.methods import Method, check_base, round_up_batch
from ..core.offsets.install import parameter_shapes
from ..core.picture.alpha import rgba_array
from ..files.layer_catalogue import Loaded
from ..form.arguments import LayerArguments, to_infotext
from ..form.frames import FRAMES
from ..unet.images import on_grey
from ..unet.method_kinds import Conditions
from . import own_files
from .frame_prompts import FramePrompts, PerPicture
from .host.host import ForgeFamily, WebuiHost, computing_device, host_of, token_merging_off
from .host.modules import host_module
from .host.row_map import step_rows
from .host.sampling import give_back, take_over
from .host.unet_pass import MethodRun, UnetPass
from .networks import Files, Networks
from .options import Options

logger = logging.getLogger(__name__)

ATTRIBUTE = "layerdiffuse_job"
ERROR_KEY, NOTE_KEY = "layerdiffusion_error", "layerdiffusion_note"
VAE_FACTOR = 8


class Job:
    """State and steps of one generation; the hooks of the script call it in the WebUI's order."""

    def __init__(self, p: Any, options: Options, files: Files, networks: Networks):
        self._p = weakref.ref(p)  # `p` has the job: a circle would keep both from being freed
        self.options, self.files, self.networks = options, files, networks
        self._counts = p.n_iter, p.do_not_save_grid  # what a failed job alters
        self.failed: LayerDiffuseError | None = None
        self._notes: dict[str, bool] = {}  # with whether files have them too; told as soon as there are pictures
        self._has_pictures = False
        self.method: Method | None = None
        self.pass_at_work: UnetPass | None = None
        self.is_tile = False  # of a picture that a chosen script joins
        self.visitor = ""  # the page that wants it; empty for an API's
        self.is_over = False  # scripts work on the finished pictures
        self._empty()

    def _empty(self) -> None:
        """Hold nothing large: no picture, and no part of the WebUI's model; at the start, and at the end."""
        self.arguments = LayerArguments()
        self.prompts: FramePrompts | None = None  # where a result has several frames
        self.host: WebuiHost | None = None
        self.weights: Any = None
        self.conditions = Conditions()
        self.latents: torch.Tensor | None = None  # of the pass that ended last, sampler's scale
        self.init_images: Any = None
        self.second_pass: Any = None
        self.edited: Any = None  # the WebUI's object for the picture at hand, which scripts edit
        self.overlay: Any = None  # the WebUI's object with the mask of the picture at hand, which scripts edit
        self.layers: list[Any] = []  # of the batch at hand
        self.results: list[Any] = []  # frames and layers as they went out, of all batches
        self.cut_outs: list[Any] = []  # what of them lies in the mask, where the WebUI gives that out too
        self.remade: dict[int, tuple[Any, Any]] = {}  # by id: what scripts saved after the job, and its layer
        self.origins: list[tuple[int, Any]] = []  # opaque pictures that are wanted too, with their place in the job

    @property
    def p(self) -> Any:
        """What the WebUI processes."""
        return self._p()

    # --- before sampling

    def take(self, arguments: LayerArguments) -> None:
        """The arguments of this job; a method that is left to the loaded base stays open."""
        self.arguments, self.method = replace(arguments, enabled=True), arguments.method_row

    def round_batch(self) -> None:
        """A batch that the frames do not divide would be noise: round it up, and say so."""
        if self.method is None or len(self.method.frames) == 1:
            return
        token_merging_off(self.p)
        self.prompts = FramePrompts(self)
        self.prompts.install()
        frames = len(self.method.frames)
        starts = len(distinct(getattr(self.p, "init_images", None) or []))
        wanted = round_up_batch(max(self.p.batch_size, starts * frames if starts > 1 else 1), frames)
        if wanted != self.p.batch_size:
            result = ", ".join(self.method.frames)
            told = f"batch size rounded up from {self.p.batch_size} to {wanted}: a result is {result}"
            self.note(told, in_files=False)
            self.p.batch_size = wanted

    def prepare(self) -> None:
        """Check everything against the loaded model and read the files; typed errors before anything is touched."""
        self.host = host_of(self.p.sd_model)
        base, modules = self.host.base, dict(self.host.unet.named_modules())
        if self.method is not None:
            check_base(self.method, base)
        self.method, self.files, self.arguments = own_files.choose(self, Loaded(base, parameter_shapes(modules)))
        self.host.check_unet()
        self.arguments.check()
        self.weights = self.networks.method(self.files, self.method, modules)
        if self.method.transparent_frames:
            self.networks.decoder(self.files, base)  # fails now rather than after the sampling
        self.p.extra_generation_params.update(to_infotext(self.arguments))
        unused = [
            frame.prompt
            for frame in FRAMES.values()
            if getattr(self.arguments, frame.prompt) and frame.name not in self.method.extra_prompts
        ]
        if unused:
            self.note(f"{' and '.join(unused)}: not used by {self.method.id}", in_files=False)

    def prepare_pass(self, latent: torch.Tensor) -> None:
        """Encode what the method sees at this pass's size ([B,4,h,w]) and take the sampler call over."""
        if not self.failed:
            self.host = host_of(self.p.sd_model)
            self.conditions = self._conditions(*(side * VAE_FACTOR for side in latent.shape[-2:]))
        take_over(self.p.sampler, weakly(self.sample))

    def _conditions(self, height: int, width: int) -> Conditions:
        def seen(frame: str) -> torch.Tensor:
            picture = rgba_array(getattr(self.arguments, FRAMES[frame].image))
            return on_grey(picture, height, width, self.arguments.resize_mode).to(self.host.device)

        method = self.method
        latents = [self.host.encode_mean(seen(frame)) for frame in method.concat]
        return Conditions(
            torch.cat(latents, dim=1) if latents else None, seen(method.control) if method.control else None
        )

    # --- sampling

    def sample(self, run: Callable[[], Any]) -> Any:
        """The sampler call of one pass with the method on the UNet; the final latents, also after an interrupt."""
        if self.failed:
            return self.p.sampler.last_latent
        settings = MethodRun(self.method, self.weights, self.arguments.weight, self.arguments.ending_step)
        try:
            with UnetPass(self.host, settings, self.conditions) as at_work:
                self.pass_at_work = at_work
                if at_work.suppressed:
                    names = ", ".join(at_work.suppressed)
                    self.note(f"attention sharing takes the place of self-attention by {names}, which has no effect")
                self._note_regions()
                self.latents = run()
                self._check_calls(at_work)
        except LayerDiffuseError as error:
            self.fail(error)
            return self.p.sampler.last_latent
        finally:
            self.pass_at_work = None
        return self.latents

    def _note_regions(self) -> None:
        names = self.host.regional() if self.prompts is not None and self.prompts.given else ()
        if names:
            own = f"{', '.join(names)}, which has prompts of its own for all layers"
            self.note(f"extra prompts may have no effect of their own beside {own}")

    def _check_calls(self, finished: UnetPass) -> None:
        if finished.steps and not finished.calls:
            raise InputError(
                "a sampling that never called the checkpoint's UNet",
                "the checkpoint's own UNet",
                "switch off what replaces or compiles it (TensorRT, torch.compile)",
            )

    def before_step(self, parameters: Any) -> None:
        """The WebUI's on_cfg_denoiser: follow a refiner, and tell the pass which rows are coming."""
        at_work = self.pass_at_work
        if at_work is None:
            return
        try:
            at_work.follow(host_of(host_module("shared").sd_model))
            at_work.steps += 1
            at_work.whole = parameters.x
            if at_work.rows.frames > 1:
                at_work.rows.begin_step(rows_of_step(parameters, self.host))
        except Exception as error:  # the WebUI would swallow it, and nobody would know
            logger.exception("LayerDiffuse could not follow this step")
            at_work.remove()
            self.note(f"from some step on the sampling ran without LayerDiffuse: {error}")
            self.pass_at_work = None

    # --- telling

    def note(self, text: str, in_files: bool = True) -> None:
        """Tell the user something about the pictures: under the gallery, in the API's info and mostly in infotexts."""
        if not self.failed:
            self._notes.setdefault(text, in_files)
        if self._has_pictures:
            self.tell()

    def tell(self) -> None:
        """There are pictures that the notes are about; those of a job without any would only hide why."""
        self._has_pictures = True
        parameters = self.p.extra_generation_params
        for text, in_files in self._notes.items():
            comment = f"LayerDiffuse: {text}"
            if comment not in self.p.comments:
                logger.warning("%s", text)
                self.p.comment(comment)
            told = parameters.get(NOTE_KEY) or ""
            line = text.replace('"', "'")  # infotexts put a backslash before each
            if in_files and line not in told:
                parameters[NOTE_KEY] = f"{told}; {line}" if told else line

    def fail(self, error: LayerDiffuseError, logged: bool = False) -> None:
        """No picture of this job is what the user asked for: say why, and let none out."""
        if self.failed:
            return
        self.failed = without_frames(error)
        self._notes = self._notes if self._has_pictures else {}
        if not logged:
            logger.error("%s", error)
        self.p.do_not_save_grid = True  # there is nothing to put into one
        self.p.comment(f"LayerDiffuse: {error}")

    def report(self, parameters: dict[str, Any]) -> None:
        """The API's info, after the infotexts: why there is no picture, all notes, texts of each picture as lists."""
        for key, value in parameters.items():
            if isinstance(value, PerPicture):
                parameters[key] = value.texts
        if self.failed:
            parameters[ERROR_KEY] = str(self.failed)
        if self._notes:
            parameters[NOTE_KEY] = "; ".join(self._notes)

    def stop(self) -> None:
        """Let the WebUI make no picture of this job; its queue, and the next use of the same `p`, go on."""
        self.p.n_iter = 0

    def finish(self) -> None:
        """Undo what may be left, also after an exception elsewhere; safe to call again."""
        self.p.n_iter, self.p.do_not_save_grid = self._counts
        give_back(getattr(self.p, "sampler", None))
        for part in (self.prompts, self.second_pass):
            if part is not None:
                part.remove()
        self.networks.rest(computing_device())
        self._empty()


def weakly(method: Callable[[Callable[[], Any]], Any]) -> Callable[[Callable[[], Any]], Any]:
    """A job's way around a sampling, for a sampler that outlives the job: then the sampling is the WebUI's own."""
    known = weakref.WeakMethod(method)

    def around(run: Callable[[], Any]) -> Any:
        ours = known()
        return run() if ours is None else ours(run)

    return around


def distinct(images: list[Any]) -> list[Any]:
    """Start pictures without repetitions: the batch tab gives the same one once for each picture of the batch."""
    return list({id(image): image for image in images}.values())


def rows_of_step(parameters: Any, host: WebuiHost) -> list:
    """Rows of AUTOMATIC1111's coming UNet calls where prompts are joined by AND; the Forge family orders by itself."""
    if isinstance(host, ForgeFamily):
        return []
    uncond = parameters.text_uncond
    images = len(next(iter(uncond.values())) if isinstance(uncond, dict) else uncond)
    if len(parameters.x) == 2 * images:
        return []
    conditions = parameters.denoiser.sampler.sampler_extra_args["cond"]
    return step_rows([len(parts) for parts in conditions.batch])


def fresh(p: Any, arguments: LayerArguments) -> LayerArguments:
    """The arguments with what an X/Y/Z plot set for this cell."""
    axes = getattr(p, "layerdiffuse_axes", None)
    return replace(arguments, **axes) if axes else arguments
