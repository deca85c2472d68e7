"""A job of a WebUI: the parameters `p`, the main loop with all hooks in their order, and what it gives out."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from fakes import prompts
from fakes.compositing import apply_overlay, colour_corrected, within
from fakes.pictures import host
from fakes.sampling import ImageRNG
from fakes.webui import NansException

FIELDS = {
    "prompt": "a red apple",
    "negative_prompt": "",
    "seed": 11,
    "steps": 2,
    "cfg_scale": 7.0,
    "width": 64,
    "height": 64,
    "batch_size": 1,
    "n_iter": 1,
    "sampler_name": "Euler",
    "s_min_uncond": 0.0,
    "denoising_strength": 0.75,
    "refiner": None,
    "refiner_switch_at": 0.5,
    "restore_faces": False,
    "do_not_save_samples": False,
    "do_not_save_grid": False,
    "token_merging_ratio": 0.0,
    "script_args": (),
    "is_api": False,
}


class DecodedSamples(list):
    """Pictures instead of latents, after a second pass."""

    already_decoded = True


class Processing:
    """What both kinds of jobs share."""

    is_hr_pass = enable_hr = False
    sampler = color_corrections = overlay_images = mask_for_overlay = paste_to = None
    iteration = batch_index = 0
    styles: ClassVar[list[str]] = []

    def __init__(self, webui: Any, is_img2img: bool, **fields: Any):
        self.webui, self.scripts = webui, webui.runners[is_img2img]
        self.__dict__.update(FIELDS | fields)
        self.outpath_samples = str(webui.folder / "outputs" / ("img2img-images" if is_img2img else "txt2img-images"))
        self.outpath_grids = str(webui.folder / "outputs" / "grids")
        self.extra_generation_params: dict[str, Any] = {}
        self.comments: dict[str, int] = {}
        self.override_settings: dict[str, Any] = dict(fields.get("override_settings", {}))
        self.latents_after_sampling, self.extra_result_images = [], []
        self.prompts = self.negative_prompts = self.seeds = self.c = self.uc = None

    @property
    def sd_model(self) -> Any:
        return self.webui.sd_model

    def comment(self, text: str) -> None:
        """Text under the gallery."""
        self.comments[text] = 1

    def close(self) -> None:
        """After the job, whatever happened."""
        self.sampler = self.c = self.uc = None

    def save_samples(self) -> bool:
        """Whether pictures are written to disk."""
        return self.webui.opts.samples_save and not self.do_not_save_samples

    def get_token_merging_ratio(self, for_hr: bool = False) -> float:
        """Share of tokens that may be merged."""
        opts = self.webui.opts
        return (for_hr and opts.token_merging_ratio_hr) or self.token_merging_ratio or opts.token_merging_ratio

    def setup_prompts(self) -> None:
        """Prompts, with styles, and seeds of the whole job."""
        self.all_prompts = self.of_job(self.prompt)
        self.all_negative_prompts = [self.negative_prompt] * len(self.all_prompts)
        self.main_prompt = self.all_prompts[0]
        count = len(self.all_prompts)
        self.all_seeds = self.seed if isinstance(self.seed, list) else list(range(self.seed, self.seed + count))

    def of_job(self, prompt: str | list[str]) -> list[str]:
        """A prompt for each picture of the job."""
        given = prompt if isinstance(prompt, list) else [prompt] * (self.batch_size * self.n_iter)
        return [prompts.styled(text, self.styles) for text in given]

    def parse_extra_network_prompts(self) -> None:
        """Take the tags of networks out of this batch's prompts."""
        self.prompts, self.extra_network_data = prompts.parse_prompts(self.prompts)

    def setup_conds(self) -> None:
        """Conditioning of this batch."""
        self.uc = prompts.learn(self.sd_model, self.negative_prompts, self.steps)
        self.c = prompts.learn_multicond(self.sd_model, self.prompts, self.steps)

    def get_conds(self) -> tuple[Any, Any]:
        """Conditioning of the pass at hand."""
        return self.c, self.uc

    def init(self, *_arguments: Any) -> None:
        """Once, before the batches."""

    def hook_before_sampling(self, x: torch.Tensor, noise: torch.Tensor, conds: Any, again: bool = False) -> None:
        """process_before_every_sampling, as often as this WebUI calls it."""

        def call() -> None:
            self.scripts.call("process_before_every_sampling", self, x=x, noise=noise, c=conds[0], uc=conds[1])

        self.webui.engine.before_sampling(self, call, again)


class Processed:
    """What a job gives out."""

    def __init__(self, p: Processing, images: list[Any], infotexts: list[str], index_of_first_image: int = 0):
        self.images, self.infotexts, self.index_of_first_image = images, infotexts, index_of_first_image
        self.info = "".join(infotexts[:1])
        self.comments = "\n".join([*p.comments, ""])
        self.all_prompts, self.all_seeds, self.batch_size = p.all_prompts, p.all_seeds, p.batch_size
        self.extra_generation_params, self.seed = p.extra_generation_params, p.all_seeds[0]

    def infotext(self, p: Processing, index: int) -> str:
        """Generation parameters of a picture of the job."""
        return create_infotext(p, self.all_prompts, self.all_seeds, index)

    def js(self) -> str:
        """The API's `info`."""
        told = {"extra_generation_params": self.extra_generation_params, "infotexts": self.infotexts}
        return json.dumps(told, default=lambda value: None)


def create_infotext(p: Processing, all_prompts: list[str], all_seeds: list[int], index: int, main: bool = False) -> str:
    """Prompt and settings as text; `main` is that of a grid.

    The job hands out other lists of prompts than it keeps, as reForge does, and its batch's own list of seeds.
    """
    values = {"Steps": p.steps, "Sampler": p.sampler_name, "Seed": all_seeds[index], "Size": f"{p.width}x{p.height}"}
    values["Model"] = p.sd_model.sd_checkpoint_info.name
    values.update(p.extra_generation_params)
    told = {"p": p, "index": index, "all_prompts": all_prompts, "use_main_prompt": main, "all_seeds": all_seeds}
    values = {key: value(**told) if callable(value) else value for key, value in values.items()}
    values = {key: value[index] if isinstance(value, list) else value for key, value in values.items()}
    settings = ", ".join(f"{key}: {quoted(value)}" for key, value in values.items() if value is not None)
    return f"{p.main_prompt if main else all_prompts[index]}\n{settings}"


def quoted(value: Any) -> str:
    """A value as WebUIs write it into an infotext."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ",:\n") else text


def process_images(p: Processing) -> Processed:
    """The whole job."""
    engine, webui = p.webui.engine, p.webui
    p.scripts.call("before_process", p)
    engine.reload_model_weights()
    engine.apply_token_merging(p.get_token_merging_ratio())
    try:
        with webui.settings(**p.override_settings) if p.override_settings else contextlib.nullcontext():
            return Job(webui, p).run()
    finally:
        engine.apply_token_merging(0.0)


class Job:
    """The main loop."""

    def __init__(self, webui: Any, p: Processing):
        self.webui, self.p, self.engine = webui, p, webui.engine
        self.images: list[Any] = []
        self.infotexts: list[str] = []

    def run(self) -> Processed:
        p, state = self.p, self.webui.state
        p.setup_prompts()
        p.scripts.call("process", p)
        with self.engine.scope():
            torch.manual_seed(p.all_seeds[0])  # the VAE samples from its posterior
            p.init(p.all_prompts, p.all_seeds, None)
            state.job_count = p.n_iter if state.job_count < 0 else state.job_count  # a script may know better
            for number in range(p.n_iter):
                p.iteration = number
                if state.interrupted or state.stopping_generation or not self._batch(number):
                    break
            processed = self._finished()
        p.scripts.call("postprocess", p, processed)
        return processed

    def _batch(self, number: int) -> bool:
        p = self.p
        self.engine.reload_model_weights()
        self.engine.before_batch(p)
        part = slice(number * p.batch_size, (number + 1) * p.batch_size)
        p.prompts, p.negative_prompts = p.all_prompts[part], p.all_negative_prompts[part]
        p.seeds = p.all_seeds[part]
        channels = getattr(self.webui.sd_model, "latent_channels", 4)
        p.rng = ImageRNG((channels, p.height // 8, p.width // 8), p.seeds)
        told = {"batch_number": number, "prompts": p.prompts, "seeds": p.seeds}
        p.scripts.call("before_process_batch", p, **told)
        if len(p.prompts) == 0:
            return False
        p.parse_extra_network_prompts()
        self.engine.activate(prompts.loras_of(p.extra_network_data))
        p.scripts.call("after_extra_networks_activate", p, **told)
        told["prompts"] = p.prompts
        p.scripts.call("process_batch", p, **told)
        p.setup_conds()
        pictures = self._decoded(p.sample())
        self.webui.state.nextjob()
        p.scripts.call("postprocess_batch", p, images=pictures, batch_number=number)
        p.prompts, p.negative_prompts = p.all_prompts[part], p.all_negative_prompts[part]
        batch = SimpleNamespace(images=list(pictures))
        p.scripts.call("postprocess_batch_list", p, batch, batch_number=number)
        for place, picture in enumerate(batch.images):
            self._finish_picture(place, picture)
        return True

    def _decoded(self, samples: Any) -> torch.Tensor:
        """Pictures [B,3,H,W] in [0,1]."""
        p = self.p
        self.engine.after_sampling(p, samples)
        told = SimpleNamespace(samples=samples)
        p.scripts.call("post_sample", p, told)
        self.webui.samples = samples = told.samples
        if not getattr(samples, "already_decoded", False):
            test_for_nans(samples, "unet")
            samples = decode_batch(self.webui, samples)
        return (torch.stack(list(samples)).float() / 2 + 0.5).clamp(0, 1)

    def _finish_picture(self, place: int, picture: torch.Tensor) -> None:
        p, opts = self.p, self.webui.opts
        p.batch_index = place
        pixels = (255.0 * picture.cpu().numpy().transpose(1, 2, 0)).astype(np.uint8)
        if p.restore_faces:
            self._save(
                Image.fromarray(pixels), place, "-before-face-restoration", opts.save_images_before_face_restoration
            )
            pixels = 255 - pixels
        image = self._hooked("postprocess_image", Image.fromarray(pixels), place)
        told = self._masked(place)
        if p.color_corrections:
            before = apply_overlay(self.webui, image, p.paste_to, told.overlay_image)
            self._save(before, place, "-before-color-correction", opts.save_images_before_color_correction)
            image = colour_corrected(p.color_corrections[place], image)
        painted = image
        image = apply_overlay(self.webui, image, p.paste_to, told.overlay_image)
        image = self._hooked("postprocess_image_after_composite", image, place)
        self._save(image, place)
        self.infotexts.append(create_infotext(p, [*p.prompts], p.seeds, place))
        if opts.enable_pnginfo:
            image.info["parameters"] = self.infotexts[-1]
        self.images.append(image)
        if told.mask_for_overlay is not None:
            self._give_out_mask(place, told.mask_for_overlay, painted)

    def _masked(self, place: int) -> SimpleNamespace:
        """Mask and overlay of this very picture, as scripts leave them."""
        p, overlay = self.p, None
        if self.webui.opts.overlay_inpaint and p.overlay_images and place < len(p.overlay_images):
            overlay = p.overlay_images[place]
        told = SimpleNamespace(index=place, mask_for_overlay=p.mask_for_overlay, overlay_image=overlay)
        p.scripts.call("postprocess_maskoverlay", p, told)
        return told

    def _give_out_mask(self, place: int, mask: Image.Image, painted: Image.Image) -> None:
        """By the settings: the mask, and what was painted as far as it goes, to the disk and to the gallery."""
        opts = self.webui.opts
        rows = [
            ("-mask", mask.convert("RGB"), opts.save_mask, opts.return_mask),
            (
                "-mask-composite",
                within(self.webui, painted, self.p.paste_to, mask),
                opts.save_mask_composite,
                opts.return_mask_composite,
            ),
        ]
        for suffix, image, is_saved, is_shown in rows:
            self._save(image, place, suffix, is_saved)
            if is_shown:
                self.images.append(image)

    def _save(self, image: Image.Image, place: int, suffix: str = "", wanted: bool = True) -> None:
        p = self.p
        if p.save_samples() and wanted:
            text, kind = create_infotext(p, [*p.prompts], p.seeds, place), self.webui.opts.samples_format
            save = host("images").save_image
            save(image, p.outpath_samples, "", p.seeds[place], p.prompts[place], kind, info=text, p=p, suffix=suffix)

    def _hooked(self, hook: str, image: Image.Image, place: int) -> Image.Image:
        told = SimpleNamespace(image=image)
        if self.engine.name == "Forge":
            told.index = place + self.p.iteration * self.p.batch_size
        self.p.scripts.call(hook, self.p, told)
        return told.image

    def _finished(self) -> Processed:
        """What the job gives out: the grid, if there is one and it is shown, goes before the pictures."""
        p = self.p
        p.color_corrections = None
        texts = self.infotexts or [Processed(p, [], []).infotext(p, 0)]
        shown = self._grid() if self._has_grid() else None
        if shown is None:
            return Processed(p, self.images, texts)
        return Processed(p, [shown[0], *self.images], [shown[1], *texts], index_of_first_image=1)

    def _has_grid(self) -> bool:
        """By its settings, a WebUI makes none of a lone picture, and none that it neither shows nor saves."""
        opts, enough = self.webui.opts, len(self.images) > 1
        used = opts.return_grid or opts.grid_save
        return bool(used and not self.p.do_not_save_grid and (enough or not opts.grid_only_if_multiple))

    def _grid(self) -> tuple[Image.Image, str] | None:
        """The grid with its text, saved if it is to be; None where the gallery does not get it."""
        p, opts, images = self.p, self.webui.opts, self.webui.images
        grid = images.image_grid(self.images, p.batch_size)
        text = create_infotext(p, [*p.prompts], p.seeds, 0, main=True)
        if opts.grid_save:
            names = {"seed": p.all_seeds[0], "extension": "png", "grid": True}
            names["short_filename"] = not opts.grid_extended_filename
            host("images").save_image(grid, p.outpath_grids, "grid", info=text, p=p, **names)
        return (grid, text) if opts.return_grid else None


def test_for_nans(samples: torch.Tensor, where: str) -> None:
    """The check of the first value."""
    if samples.flatten()[0].isnan():
        raise NansException(f"no numbers came out of the {where}")


test_for_nans.__test__ = False


def decode_batch(webui: Any, latents: torch.Tensor) -> DecodedSamples:
    """One latent after the other through the VAE."""
    decoded = DecodedSamples()
    for latent in latents:
        picture = webui.sd_model.decode_first_stage(latent[None])[0]
        test_for_nans(picture, "vae")
        decoded.append(picture)
    return decoded


def run_closing(webui: Any, p: Processing, work: Callable[[Processing], Any] = process_images) -> Any:
    """A job as the page and the API run it: `p` is closed whatever happens."""
    try:
        return work(p)
    finally:
        p.close()
        webui.fresh_state()
