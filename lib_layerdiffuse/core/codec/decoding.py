"""Runs the transparency decoder: any size, any batch, one to eight orientations, in chunks that fit the memory.

The published result is the median over eight orientations of the picture (flipped or not, four rotations), each
decoded, clipped and turned back. Of eight values that median is the fourth smallest, and so it is here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce

import torch

from ..bases import RGBA, CodecRule
from ..errors import InputError
from ..memory import free_bytes, is_out_of_memory, release
from .decoder import TransparencyUNet
from .tiling import SMALLEST, tiled

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
SHARE = 0.7  # of the memory at hand that a chunk may take
OVERSHOOT = 0.5  # how far a VAE's pixels may leave [0,1]
RESULT_BYTES = 4 * 4 * 2  # per pixel: R,G,B,A in float32, and one more while tiles are blended
LARGEST_CHUNK = {"cpu": 4}  # more gains nothing there and costs memory


@dataclass(frozen=True)
class Orientation:
    """A mirror image or not of [...,H,W], then `turns` quarter turns."""

    mirrored: bool
    turns: int

    def apply(self, picture: torch.Tensor) -> torch.Tensor:
        """[...,H,W] -> [...,H,W] or, for odd turns, [...,W,H]."""
        return torch.rot90(picture.flip(-1) if self.mirrored else picture, self.turns, (-2, -1))

    def undo(self, picture: torch.Tensor) -> torch.Tensor:
        picture = torch.rot90(picture, -self.turns, (-2, -1))
        return picture.flip(-1) if self.mirrored else picture


# in this order, the first 2 and 4 keep the picture's shape, so that they run as one batch for oblong pictures too
ORIENTATIONS = tuple(Orientation(mirrored, turns) for turns in (0, 2, 1, 3) for mirrored in (False, True))
# which of the sorted values are averaged: the ordinary median, except for the eight of the published result
RANKS = {1: (0,), 2: (0, 1), 4: (1, 2), 8: (3,)}


class TooLarge(InputError):
    """A picture for whose decoding the memory does not suffice."""


def _is_ready(network: TransparencyUNet, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether all weights are where and what they shall be; asked for every batch, and quicker than moving them."""
    return all(
        weight.device == device
        and weight.dtype == dtype
        and (weight.dim() < 4 or weight.is_contiguous(memory_format=torch.channels_last))
        for weight in network.parameters()
    )


class TransparencyDecoder:
    """A transparency network made ready to decode: moves it to `device` and `dtype` (by default where and what it is).

    On a CPU half precision is computed in float32, which is both faster and exact there. `rule` says the order of its
    channels, and whether it is to see pixels outside of [0,1].
    """

    def __init__(
        self,
        network: TransparencyUNet,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        rule: CodecRule | None = None,
    ):
        weight = network.conv_in.weight
        self.device = torch.device(device) if device is not None else weight.device
        self.dtype = torch.float32 if self.device.type == "cpu" else dtype or weight.dtype
        if not _is_ready(network, self.device, self.dtype):
            network.to(self.device, self.dtype)
            network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  torch's stubs lack it
        self.network, self.rule = network, rule or CodecRule()

    def decode(
        self,
        pixel: torch.Tensor,
        latent: torch.Tensor,
        passes: int = 8,
        chunk: int | None = None,
        progress: Progress | None = None,
    ) -> torch.Tensor:
        """Pixel [B,3,H,W], about [0,1], and VAE-space latent [B,C,ceil(H/f),ceil(W/f)] -> RGBA [B,4,H,W] in [0,1].

        `passes` orientations (1, 2, 4 or 8) vote by median; `chunk` is how many pictures run at once (by default what
        the memory allows); `progress(done, total)` is called after each chunk and may raise to stop. Where not even one
        picture fits the memory, it is decoded in tiles as large as they can be; TooLarge where those do not fit either.
        InputError for shapes that do not belong together.
        """
        self._check(pixel, latent, passes, chunk)
        try:
            return self._decode(pixel, latent, passes, chunk, progress)
        except TooLarge as error:
            too_large = error
        side = max(pixel.shape[-2:])
        if RESULT_BYTES * pixel[:, 0].numel() > free_bytes(self.device):
            raise too_large
        while True:
            side = side * 3 // 4 // self.network.multiple * self.network.multiple
            if side < SMALLEST:
                raise too_large
            logger.warning("too little memory for the whole picture: decoding in tiles of %d pixels", side)
            try:
                return self._decode_tiled(pixel, latent, passes, side)
            except TooLarge:
                continue

    def _decode(
        self, pixel: torch.Tensor, latent: torch.Tensor, passes: int, chunk: int | None, progress: Progress | None
    ) -> torch.Tensor:
        H, W = pixel.shape[-2:]
        chunk = chunk or self._fitting_chunk(*self.padded_size(H, W))
        _check_values(pixel, latent)
        pixel = pixel.clamp(0, 1) if self.rule.clip_pixels else pixel
        job = _Job(self, *self.padded(pixel, latent), passes)
        return ordered(median(job.run(chunk, progress))[:, :, :H, :W], RGBA, self.rule.channel_order)

    def _decode_tiled(self, pixel: torch.Tensor, latent: torch.Tensor, passes: int, tile: int) -> torch.Tensor:
        def work(pixels: tuple[slice, slice], latents: tuple[slice, slice]) -> torch.Tensor:
            return self._decode(pixel[(..., *pixels)], latent[(..., *latents)], passes, None, None)

        H, W = pixel.shape[-2:]
        return tiled((H, W), tile, self.network.factor, work)

    def padded(self, pixel: torch.Tensor, latent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both continued by reflection to the right and below, to the next size that the network takes."""
        H, W = self.padded_size(*pixel.shape[-2:])
        factor = self.network.factor
        return (
            reflect(pixel, H, W).to(self.device, self.dtype),
            reflect(latent, H // factor, W // factor).to(self.device, self.dtype),
        )

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """The next size, in pixels, that the network takes."""
        multiple = self.network.multiple
        return -(-height // multiple) * multiple, -(-width // multiple) * multiple

    def _check(self, pixel: torch.Tensor, latent: torch.Tensor, passes: int, chunk: int | None) -> None:
        if passes not in RANKS:
            raise InputError(f"{passes} passes", "1, 2, 4 or 8", "choose one of them")
        if chunk is not None and chunk < 1:
            raise InputError(f"a chunk of {chunk}", "1 or more pictures at once", "leave it out")
        if pixel.ndim != 4 or pixel.shape[1] != 3 or 0 in pixel.shape:
            raise InputError(f"pixels {list(pixel.shape)}", "[B,3,H,W]", "pass the picture that the VAE decoded")
        factor = self.network.factor
        expected = [len(pixel), self.network.latent_channels, *(-(-side // factor) for side in pixel.shape[-2:])]
        if list(latent.shape) != expected:
            raise InputError(
                f"a latent {list(latent.shape)} for pixels {list(pixel.shape)}",
                f"{expected}",
                "pass the latent that these pixels were decoded from, and the decoder made for this VAE",
            )

    def _fitting_chunk(self, H: int, W: int) -> int:
        """How many orientations of one picture fit the memory at hand; InputError where not even one can."""
        needed = bytes_per_pixel(self.network, self.dtype) * H * W
        free = free_bytes(self.device)
        if self.device.type == "cpu" and needed > free:  # the system would kill the process instead of raising
            raise _too_large(H, W, needed, free)
        fitting = max(1, int(free * SHARE / needed))
        return min(fitting, LARGEST_CHUNK.get(self.device.type, fitting))


class _Job:
    """One decode: all pictures in all orientations, those of one shape together."""

    def __init__(self, decoder: TransparencyDecoder, pixel: torch.Tensor, latent: torch.Tensor, passes: int):
        self.decoder, self.pixel, self.latent = decoder, pixel, latent
        self.orientations = ORIENTATIONS[:passes]
        self.results: list[list[torch.Tensor]] = [[pixel] * len(pixel) for _ in self.orientations]

    def run(self, chunk: int, progress: Progress | None) -> list[torch.Tensor]:
        """One clipped output [B,4,H,W] float32 of the network for each orientation, turned back."""
        done, total = 0, len(self.orientations) * len(self.pixel)
        for group in self.groups():
            while group:
                chunk = min(chunk, len(group))
                taken = self._try(group[:chunk])
                if not taken:
                    chunk = self._smaller(chunk)
                    continue
                group = group[chunk:]
                done += taken
                if progress is not None:
                    progress(done, total)
        return [torch.stack(pictures) for pictures in self.results]

    def groups(self) -> Iterator[list[tuple[int, int]]]:
        """(orientation, picture) pairs whose turned pictures have one shape."""
        square = self.pixel.shape[-1] == self.pixel.shape[-2]
        for odd in (0, 1):
            pairs = [
                (number, picture)
                for number, orientation in enumerate(self.orientations)
                for picture in range(len(self.pixel))
                if square or orientation.turns % 2 == odd
            ]
            yield pairs
            if square:
                return

    def _try(self, pairs: list[tuple[int, int]]) -> int:
        """Decodes these; how many, or 0 where the memory did not suffice."""
        try:
            self._decode(pairs)
        except (RuntimeError, MemoryError) as error:  # torch has no one type for this over its devices
            if not is_out_of_memory(error):
                raise
            logger.info("out of memory with %d pictures at once", len(pairs))
        else:
            return len(pairs)
        release(self.decoder.device)  # after the except clause, whose traceback keeps the tensors alive
        return 0

    def _smaller(self, chunk: int) -> int:
        if chunk > 1:
            return chunk // 2
        H, W = self.pixel.shape[-2:]
        needed = bytes_per_pixel(self.decoder.network, self.decoder.dtype) * H * W
        raise _too_large(H, W, needed, free_bytes(self.decoder.device))

    def _decode(self, pairs: list[tuple[int, int]]) -> None:
        def turned(source: torch.Tensor) -> torch.Tensor:
            batch = torch.stack([self.orientations[number].apply(source[picture]) for number, picture in pairs])
            return batch.contiguous(memory_format=torch.channels_last)

        with torch.inference_mode(), _without_autocast(self.decoder.device):
            raw = self.decoder.network(turned(self.pixel), turned(self.latent))
        # outside of inference mode, so that callers get ordinary tensors
        for (number, picture), output in zip(pairs, raw.float().clamp(0, 1), strict=True):
            self.results[number][picture] = self.orientations[number].undo(output)


def _without_autocast(device: torch.device) -> torch.autocast:
    """A host's autocast would round what was asked for in float32."""
    return torch.autocast(device.type if device.type in ("cpu", "cuda") else "cpu", enabled=False)


def reflect(picture: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """[...,H,W] -> [...,height,width], mirrored about the outer edge of its last row and column as often as it takes.

    Edges, not centres: only so do the mirrored pixels stay above the mirrored latent that they belong to.
    """
    for axis, size in ((-2, height), (-1, width)):
        length = picture.shape[axis]
        if size == length:
            continue
        index = torch.arange(size, device=picture.device) % (2 * length)
        picture = picture.index_select(axis, torch.minimum(index, 2 * length - 1 - index))
    return picture


def ordered(picture: torch.Tensor, wanted: str, given: str = RGBA) -> torch.Tensor:
    """[B,4,H,W] with its channels, `given` in this order, in another: "argb" or "rgba"."""
    return picture if wanted == given else picture[:, [given.index(channel) for channel in wanted]]


def median(values: list[torch.Tensor]) -> torch.Tensor:
    """Median, element by element, of 1, 2, 4 or 8 tensors of any shape: of 8 the fourth smallest, else the mean of two.

    By a sorting network of minimum and maximum: quicker than a sort, and no 5-D sort, on which Macs abort.
    """
    values, ranks = list(values), RANKS[len(values)]
    for low, high in exchanges(len(values)):
        smaller = torch.minimum(values[low], values[high])
        values[high] = torch.maximum(values[low], values[high])
        values[low] = smaller
    return reduce(torch.add, [values[rank] for rank in ranks]) / len(ranks)


def exchanges(count: int) -> Iterator[tuple[int, int]]:
    """Compare-exchange pairs that sort `count` (a power of two) values: Batcher's odd-even merge sort."""
    block = 1
    while block < count:
        step = block
        while step >= 1:
            for start in range(step % block, count - step, 2 * step):
                for low in range(start, min(start + step, count - step)):
                    if low // (2 * block) == (low + step) // (2 * block):
                        yield low, low + step
            step //= 2
        block *= 2


def bytes_per_pixel(network: TransparencyUNet, dtype: torch.dtype) -> int:
    """Upper estimate of the bytes that one pass needs for each pixel: kept activations and the widest block's own."""
    kept = sum(width * (network.layers + 2) / 4**level for level, width in enumerate(network.channels))
    widest = max(width * 8 / 4**level for level, width in enumerate(network.channels))
    return int((kept + widest) * torch.empty(0, dtype=dtype).element_size()) + 32  # and the float32 result


def _check_values(pixel: torch.Tensor, latent: torch.Tensor) -> None:
    if not torch.isfinite(pixel).all() or not torch.isfinite(latent).all():
        raise InputError(
            "pixels or a latent with NaN or infinity",
            "finite numbers",
            "run the VAE in float32 or bfloat16 (float16 overflows in some VAEs), then generate again",
        )
    if pixel.min() < -OVERSHOOT or pixel.max() > 1 + OVERSHOOT:  # a VAE overshoots [0,1] a little, no more
        raise InputError(
            f"pixels from {pixel.min().item():.3g} to {pixel.max().item():.3g}",
            "pixels in [0,1]",
            "convert the VAE's [-1,1] by x / 2 + 0.5",
        )


def _too_large(H: int, W: int, needed: int, free: int) -> TooLarge:
    return TooLarge(
        f"a picture that needs about {needed / 2**30:.1f} GiB ({W}x{H} as the network sees it)",
        f"at most the {free / 2**30:.1f} GiB of memory at hand",
        "generate a smaller picture, close other programs, or decode in half precision on a GPU or on the CPU instead",
    )
