"""The two kinds of jobs: text to image with its second pass, image to image with its masks."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from fakes import prompts
from fakes.compositing import around_the_mask, crop_region, overlay_of
from fakes.pictures import host
from fakes.processing import Processing, create_infotext, decode_batch
from fakes.sampling import ImageRNG

LATENT_UPSCALE = "Latent"
LATENT_RESIZE, FILL_EDGES = 3, 2  # modes of resizing


class Txt2Img(Processing):
    """Text to image."""

    hr_scale, hr_upscaler, hr_prompt, hr_second_pass_steps = 2.0, "Lanczos", "", 0
    hr_c = hr_uc = hr_prompts = firstpass_image = None

    def __init__(self, webui: Any, **fields: Any):
        super().__init__(webui, False, **fields)
        self.hr_upscale_to_x, self.hr_upscale_to_y = (int(n * self.hr_scale) for n in (self.width, self.height))
        self.latent_scale_mode = {"mode": "bilinear"} if self.hr_upscaler == LATENT_UPSCALE else None

    def setup_prompts(self) -> None:
        super().setup_prompts()
        if self.enable_hr:
            self.hr_prompt = self.hr_prompt or self.prompt
            self.all_hr_prompts = self.of_job(self.hr_prompt)

    def parse_extra_network_prompts(self) -> None:
        super().parse_extra_network_prompts()
        if self.enable_hr:
            start = self.iteration * self.batch_size
            found = prompts.parse_prompts(self.all_hr_prompts[start : start + self.batch_size])
            self.hr_prompts, self.hr_extra_network_data = found

    def setup_conds(self) -> None:
        if self.is_hr_pass:
            self.hr_uc = prompts.learn(self.sd_model, self.negative_prompts, self.steps)
            self.hr_c = prompts.learn_multicond(self.sd_model, self.hr_prompts, self.steps)
            return
        super().setup_conds()

    def get_conds(self) -> tuple[Any, Any]:
        return (self.hr_c, self.hr_uc) if self.is_hr_pass else (self.c, self.uc)

    def sample(self) -> Any:
        """Latents, or the second pass's decoded pictures."""
        engine = self.webui.engine
        self.sampler = engine.create_sampler(self.sampler_name)
        if self.firstpass_image is not None and self.enable_hr:
            return self._upscaled()
        x = self.rng.next()
        self.hook_before_sampling(x, x, (self.c, self.uc))
        samples = self.sampler.sample(self, x, self.c, self.uc)
        self.webui.first_pass = samples
        if not self.enable_hr:
            return samples
        decoded = None if self.latent_scale_mode else torch.stack(list(decode_batch(self.webui, samples)))
        engine.reload_model_weights()
        return self.sample_hr_pass(samples, decoded, *self._named_by())

    def _upscaled(self) -> Any:
        """A picture in the place of the first pass."""
        image = torch.from_numpy(np.array(self.firstpass_image, np.float32).transpose(2, 0, 1)[None] / 255)
        if self.latent_scale_mode is None:
            return self.sample_hr_pass(None, image * 2 - 1, *self._named_by())
        return self.sample_hr_pass(encode(self.webui, image), None, *self._named_by())

    def _named_by(self) -> tuple[list[int], list[int], float, list[str]]:
        """What the second pass is told beside its pictures, and uses for names alone."""
        return self.seeds, [0] * len(self.seeds), 0.0, self.prompts

    def sample_hr_pass(
        self, samples: torch.Tensor, decoded: Any, seeds: list[int], _subseeds: Any, _strength: Any, texts: list[str]
    ) -> Any:
        """The second pass; what it got where the user interrupts."""
        engine = self.webui.engine
        if self.webui.state.interrupted:
            return samples
        self.is_hr_pass = True
        self.sampler = engine.create_sampler(self.sampler_name)
        size = self.hr_upscale_to_y, self.hr_upscale_to_x
        if self.webui.opts.save_images_before_highres_fix and self.save_samples():
            self._save_first(decode_batch(self.webui, samples) if decoded is None else decoded, seeds, texts)
        samples = self.webui.second_start = self._enlarged(samples, decoded, size)
        self.webui.state.nextjob()
        self.rng = ImageRNG(samples.shape[1:], self.seeds)
        noise = self.rng.next()
        engine.activate(prompts.loras_of(self.hr_extra_network_data))
        self.setup_conds()
        self.hook_before_sampling(samples, noise, (self.hr_c, self.hr_uc), again=True)
        steps = self.hr_second_pass_steps or self.steps
        samples = self.sampler.sample_img2img(self, samples, noise, (self.hr_c, self.hr_uc), steps)
        self.webui.second_pass = samples
        self.sampler = None
        result = decode_batch(self.webui, samples)
        self.is_hr_pass = False
        return result

    def _save_first(self, decoded: Any, seeds: list[int], texts: list[str]) -> None:
        """The pictures of the first pass."""
        for place, picture in enumerate(decoded):
            pixels = (255.0 * (picture / 2 + 0.5).clamp(0, 1).numpy().transpose(1, 2, 0)).astype(np.uint8)
            named = {"info": create_infotext(self, [*self.prompts], self.seeds, place), "p": self}
            save, kind = host("images").save_image, self.webui.opts.samples_format
            where = (self.outpath_samples, "", seeds[place], texts[place], kind)
            save(Image.fromarray(pixels), *where, suffix="-before-highres-fix", **named)

    def _enlarged(self, samples: torch.Tensor, decoded: Any, size: tuple[int, int]) -> torch.Tensor:
        if decoded is None:
            latent_size = [side // 8 for side in size]
            return torch.nn.functional.interpolate(samples, size=latent_size, mode="bilinear")
        images = []
        for picture in decoded:
            pixels = (255.0 * (picture / 2 + 0.5).clamp(0, 1).numpy().transpose(1, 2, 0)).astype(np.uint8)
            image = self.webui.images.resize_image(0, Image.fromarray(pixels), size[1], size[0])
            images.append(np.asarray(image, np.float32).transpose(2, 0, 1) / 255)
        return encode(self.webui, torch.from_numpy(np.stack(images)))


class Img2Img(Processing):
    """Image to image; a mask's white part is painted anew."""

    resize_mode, inpaint_full_res, inpaint_full_res_padding = 0, False, 4
    init_images: ClassVar[list[Image.Image]] = []
    image_mask = mask = nmask = init_latent = None

    def __init__(self, webui: Any, **fields: Any):
        super().__init__(webui, True, **fields)
        self.init_images = list(self.init_images)

    def init(self, *_arguments: Any) -> None:
        self.extra_generation_params["Denoising strength"] = self.denoising_strength
        self.sampler = self.webui.engine.create_sampler(self.sampler_name)
        mask, crop = self._mask()
        told = {"crop_region": crop, "image_mask": mask}
        if self.webui.engine.name == "Forge":
            self.scripts.call("before_process_init_images", self, told)
        self.overlay_images = [] if mask is not None else None
        if self.webui.opts.img2img_color_correction:
            self.color_corrections = []
        starts = [self._prepared(image, mask, crop) for image in self.init_images]
        latents = encode(self.webui, torch.from_numpy(np.stack(self._one_for_each(starts))))
        self.init_latent = self._stretched(latents) if self.resize_mode == LATENT_RESIZE else latents
        if mask is not None:
            self._protect(mask)

    def _one_for_each(self, starts: list[np.ndarray]) -> list[np.ndarray]:
        """One start picture serves a whole batch, several make the batch; there is no place for more."""
        if len(starts) > max(self.batch_size, 1):
            raise RuntimeError(f"{len(starts)} start pictures do not fit into a batch of {self.batch_size}")
        if len(starts) > 1:
            self.batch_size = len(starts)
            return starts
        for name in ("overlay_images", "color_corrections"):
            setattr(self, name, (getattr(self, name) or []) * self.batch_size or None)
        return starts * self.batch_size

    def _stretched(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents of the start's own size at the job's."""
        wanted = (self.height // 8, self.width // 8)
        return torch.nn.functional.interpolate(latents, size=wanted, mode="bilinear")

    def _protect(self, mask: Image.Image) -> None:
        """`nmask` is 1 where latents are painted anew, `mask` where the start's stay; [4,h,w] each."""
        channels, height, width = self.init_latent.shape[1:]
        levels = np.asarray(mask.convert("L").resize((width, height)), np.float32) / 255
        painted = torch.from_numpy(levels).round()[None].expand(channels, -1, -1)
        self.nmask, self.mask = painted, 1 - painted

    def _mask(self) -> tuple[Image.Image | None, Any]:
        """The mask at the size of what is sampled, and the part of the picture that it is cut from."""
        if self.image_mask is None:
            return None, None
        grey, crop = self.image_mask.convert("L"), None
        if self.inpaint_full_res:  # only masked: the overlay's mask has the start picture's own size
            self.mask_for_overlay = grey
            left, top, right, bottom = crop = crop_region(grey, self.inpaint_full_res_padding)
            self.paste_to = (left, top, right - left, bottom - top)
            return self._sized(grey.crop(crop), FILL_EDGES), crop
        self.mask_for_overlay = grey = self._sized(grey, self.resize_mode)
        return grey, crop

    def _sized(self, image: Image.Image, mode: int) -> Image.Image:
        """At the size of the job."""
        return self.webui.images.resize_image(mode, image, self.width, self.height)

    def _prepared(self, image: Image.Image, mask: Any, crop: Any) -> np.ndarray:
        """One start picture as the VAE gets it, [3,H,W] in [0,1]."""
        if self.webui.opts.save_init_img:
            folder = str(self.webui.folder / "outputs" / "init-images")
            named = {"forced_filename": hashlib.sha256(image.tobytes()).hexdigest()[:8], "existing_info": image.info}
            host("images").save_image(image, folder, None, **named)
        image = self.webui.images.flatten(image, self.webui.opts.img2img_background_color)
        whole = image if crop or self.resize_mode == LATENT_RESIZE else self._sized(image, self.resize_mode)
        if mask is not None:  # what lies over the result is of the whole picture, not of the crop
            self.overlay_images.append(overlay_of(whole, self.mask_for_overlay.resize(whole.size)))
        image = self._sized(whole.crop(crop), FILL_EDGES) if crop else whole
        if self.color_corrections is not None:
            self.color_corrections.append(np.asarray(image, np.float32).mean(axis=(0, 1)))
        return np.asarray(image, np.float32).transpose(2, 0, 1) / 255

    def sample(self) -> torch.Tensor:
        """Latents, blended with the start where a mask leaves it."""
        noise = self.rng.next()
        self.hook_before_sampling(self.init_latent, noise, (self.c, self.uc))
        samples = self.sampler.sample_img2img(self, self.init_latent, noise, (self.c, self.uc))
        self.webui.first_pass = samples
        return samples if self.mask is None else around_the_mask(self, self, samples)


def encode(webui: Any, images: torch.Tensor) -> torch.Tensor:
    """Pictures [B,3,H,W] in [0,1] -> the sampler's latents, one by one."""
    model = webui.sd_model
    latents = [model.get_first_stage_encoding(model.encode_first_stage(image[None] * 2 - 1))[0] for image in images]
    return torch.stack(latents)
