"""Image to image with transparency: what the WebUI's VAE sees of an RGBA picture, and its latent adjusted on the way.

The WebUI encodes its start pictures one by one inside `p.init`; there, and only there, the posterior is adjusted by
the transparency encoder's offset for the same crop and size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...core.codec.codec import POINTWISE, TransparencyCodec
from ...core.picture.alpha import composite_on_grey, least_alpha, pad_rgb, rgba_array, to_tensor
from ...core.picture.sizes import check_pixels, reduced
from ..host.modules import host_module, option
from ..host.vae import adjusted_posterior
from ..saving.keeping import Inpainting
from ..wrapping import once
from .pictures import ClearLayer
from .request import Request
from .run import Run, RunPart

LATENT_RESIZE = 3  # "just resize (latent upscale)"
WHITE = 255
START = "layerdiffuse_start"  # attribute of the opaque picture that a WebUI is given: the start picture itself
ONLY_MASKED = 2  # the mode in which WebUIs bring the crop of "only masked" to size
ROWS = 512  # of a picture that are in float at a time


class InitImages(RunPart):
    """The start pictures of a job, as the user gave them, and how they reach the VAE."""

    def __init__(self, run: Run):
        super().__init__(run)
        self.given = self._of_batch(distinct(self.p.init_images))
        self.pictures = self._of_batch([self._taken(image) for image in distinct(self.p.init_images)])
        self.encoded = 0
        self._wrapped: Callable[[], None] | None = None  # undoes what takes part in `init`

    def _of_batch(self, given: list[Image.Image]) -> list[Image.Image]:
        """One picture for all of the batch, or one for each; all frames of a result start from the same."""
        frames = len(self.run.method.frames)
        if len(given) == 1 or frames == 1:
            return given
        return [given[place // frames % len(given)] for place in range(self.p.batch_size)]

    def _taken(self, image: Image.Image) -> Image.Image:
        """A start picture as RGBA; far smaller where it is only brought to the job's size."""
        check_pixels(image, "the start picture")
        only_masked = getattr(self.p, "image_mask", None) is not None and getattr(self.p, "inpaint_full_res", False)
        at_its_size = only_masked or self.p.resize_mode == LATENT_RESIZE
        return with_texts(image if at_its_size else reduced(image, (self.p.height, self.p.width)))

    def install(self) -> None:
        """Give the WebUI flattened pictures, and adjust what it encodes where the method makes transparency."""
        run, request = self.run, self.run.request
        networks = request.networks
        codec = networks.encoder(run.files, run.method.base) if run.method.transparent_frames else None
        stand_ins = [stand_in(*pair, codec) for pair in zip(self.pictures, self.given, strict=True)]
        request.changes.set("init_images", stand_ins)
        look_at_mask(request, self.pictures[0])
        if codec is None:
            return
        if option("sd_vae_encode_method", "Full") != "Full":
            request.note("the start picture's transparency is lost: the setting VAE encode method must be Full")
            return
        self._wrap_init(codec.to(run.host.device))

    def _wrap_init(self, codec: TransparencyCodec) -> None:
        def init(original: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
            with adjusted_posterior(self.run.host.vae, self._adjust(codec)):
                return original(*arguments, **named)

        self._wrapped = once(self.p, "init", init)  # the next job has pictures of its own

    def remove(self) -> None:
        """Take no part in an `init` that never came."""
        if self._wrapped is not None:
            self._wrapped()

    def _adjust(self, codec: TransparencyCodec) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        def adjust(mean: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
            if self.encoded >= max(len(self.pictures), self.p.batch_size):  # whatever else is encoded there
                return mean
            rows = [self._offset(codec, self.encoded + row, mean.shape[-2:]) for row in range(len(mean))]
            self.encoded += len(mean)
            return codec.adjusted(mean, deviation, torch.cat(rows).to(mean.device))

        return adjust

    def _offset(self, codec: TransparencyCodec, place: int, size: tuple[int, ...]) -> torch.Tensor:
        """Raw offset [1,4,h,w] of the picture at this place in the batch, at the latent's size."""
        picture = self.pictures[min(place, len(self.pictures) - 1)]
        return offset_at(codec, self._to_size(picture), size)

    def _to_size(self, picture: Image.Image) -> Image.Image:
        """The picture cropped and resized as the WebUI does with its own copy, alpha included."""
        p = self.p
        crop = getattr(p, "paste_to", None)
        if crop:
            x, y, width, height = crop
            return resized(picture.crop((x, y, x + width, y + height)), ONLY_MASKED, p.width, p.height)
        if p.resize_mode == LATENT_RESIZE:
            return picture
        return resized(picture, p.resize_mode, p.width, p.height)

    def as_layer(self, place: int) -> ClearLayer:
        """The start picture at this place in the batch, as if it were decoded."""
        number = min(place, len(self.pictures) - 1)
        return ClearLayer("", self.p.init_images[number], self.pictures[number])

    def inpainting(self, place: int, overlay: Any) -> Inpainting | None:
        """Where the new pixels of the picture at this place in the batch go, `overlay` being the WebUI's word on it."""
        picture = self.pictures[min(place, len(self.pictures) - 1)]
        p = self.p
        if not getattr(p, "paste_to", None) and p.resize_mode != LATENT_RESIZE:
            picture = resized(picture, p.resize_mode, p.width, p.height)
        return Inpainting.of(p, picture, overlay)


def distinct(images: list[Any]) -> list[Any]:
    """Start pictures without repetitions: the batch tab gives the same one once for each picture of the batch."""
    return list({id(image): image for image in images}.values())


def with_texts(image: Any) -> Image.Image:
    """A start picture as RGBA, with the texts of its file."""
    rgba = Image.fromarray(rgba_array(image))
    rgba.info = {key: text for key, text in image.info.items() if isinstance(key, str) and isinstance(text, str)}
    return rgba


def stand_in(picture: Image.Image, given: Image.Image, codec: TransparencyCodec | None) -> Image.Image:
    """What the WebUI is given for a start picture; where it saves that, the picture is saved as it was given."""
    opaque = flattened(picture, codec)
    opaque.info = dict(picture.info)
    if picture.size != given.size and option("save_init_img", False):
        setattr(opaque, START, with_texts(given))
    elif not is_solid(picture):
        setattr(opaque, START, picture)
    return opaque


def is_solid(picture: Image.Image) -> bool:
    """Whether an RGBA picture is opaque everywhere."""
    return least_alpha(picture) == WHITE


def look_at_mask(request: Request, picture: Image.Image) -> None:
    """A mask in which nothing is painted: by the settings what is transparent is painted; else a note."""
    p, mask = request.p, getattr(request.p, "image_mask", None)
    if mask is None or getattr(p, "inpainting_mask_invert", 0) or painted(mask):
        return
    see_through = picture.getchannel("A").point([255] * 255 + [0])
    if request.options.fill_transparent and see_through.getbbox():
        request.changes.set("image_mask", see_through)
        return
    request.note(
        "nothing is painted into the mask, so the picture stays, or all of it is painted where the area is "
        '"Only masked": paint over what is to change, or tick "Inpaint without a painted mask" in the settings'
    )


def painted(mask: Image.Image) -> bool:
    """Whether there is anything in a mask, as WebUIs read it: alpha where it has one that says something, else grey."""
    bands = mask.getbands()
    alpha = mask.getchannel("A") if "A" in bands else None
    grey = mask.convert("L") if alpha is None or alpha.getextrema() == (255, 255) else alpha
    return grey.getbbox() is not None


def flattened(picture: Image.Image, codec: TransparencyCodec | None) -> Image.Image:
    """RGBA as the VAE is to see it: by the codec's rule, or on grey where there is none."""
    if is_solid(picture):  # which every rule leaves as it is
        return picture.convert("RGB")
    whole = codec is not None and codec.rule.vae_input not in POINTWISE
    rows = picture.height if whole else ROWS
    result = Image.new("RGB", picture.size)
    for top in range(0, picture.height, rows):
        part = picture.crop((0, top, picture.width, min(picture.height, top + rows)))
        result.paste(_flattened(part, codec), (0, top))
    return result


def _flattened(picture: Image.Image, codec: TransparencyCodec | None) -> Image.Image:
    rgba = to_tensor(picture)
    rgb = codec.seen(rgba) / 2 + 0.5 if codec else composite_on_grey(rgba)
    return Image.fromarray((rgb[0].permute(1, 2, 0).numpy() * 255).round().clip(0, 255).astype(np.uint8))


def offset_at(codec: TransparencyCodec, picture: Image.Image, size: tuple[int, ...]) -> torch.Tensor:
    """Raw offset [1,4,h,w] of an RGBA picture, at the latent's size (h, w)."""
    offset = codec.offset(to_tensor(picture))
    if offset.shape[-2:] != size:  # a WebUI that encodes at another size than it says
        offset = torch.nn.functional.interpolate(offset, size=size, mode="bilinear", antialias=True)
    return offset


def resized(picture: Image.Image, mode: int, width: int, height: int) -> Image.Image:
    """RGBA by the WebUI's own resize, which knows RGB and grey only: colour and alpha apart, colour padded first."""
    if picture.size == (width, height):  # to the very level, colours of soft edges too
        return picture
    resize = host_module("images").resize_image
    padded = (pad_rgb(np.asarray(picture)) * 255).round().astype(np.uint8)
    colour = resize(mode, Image.fromarray(padded), width, height).convert("RGB")
    alpha = resize(mode, picture.getchannel("A").convert("RGB"), width, height).convert("L")
    colour.putalpha(alpha)
    return colour
