"""The scripts of a WebUI's list that cut pictures into tiles: what they ask of the WebUI, and what they make.

Written from how they behave: RGB canvases, tiles with an overlap, jobs of the same `p` one after the other.
"""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from fakes.processing import Processed, process_images, run_closing
from fakes.running import Outcome, job
from fakes.scripts import Script


class Selectable(Script):
    """A script of the list of img2img."""

    def show(self, is_img2img: bool) -> bool:
        return is_img2img

    @property
    def images(self) -> Any:
        """The functions of `modules.images` as they are now."""
        return importlib.import_module("modules.images")

    def save(self, p: Any, image: Image.Image, info: str) -> None:
        """Into the folder of samples."""
        opts = p.webui.opts
        if opts.samples_save:
            self.images.save_image(image, p.outpath_samples, "", p.seed, p.prompt, opts.samples_format, info=info, p=p)


def quiet(p: Any) -> None:
    """Jobs for tiles save nothing."""
    p.n_iter, p.do_not_save_grid, p.do_not_save_samples = 1, True, True


def jobs_of(p: Any, tiles: list[Image.Image], before: Callable[[int], None] = lambda _place: None) -> tuple[list, str]:
    """A job for each group of tiles; what they gave, and the first infotext."""
    results, info, size = [], "", p.batch_size
    for place in range(0, len(tiles), size):
        p.batch_size, p.init_images = size, tiles[place : place + size]
        before(place)
        processed = process_images(p)
        info, p.seed = info or processed.infotexts[0], processed.seed + 1
        results += processed.images
    return results, info


class SDUpscale(Selectable):
    """Enlarges the picture, and paints it anew by tiles."""

    def title(self) -> str:
        return "SD upscale"

    def run(self, p: Any, overlap: int, scale: float) -> Processed:
        start = self.images.flatten(p.init_images[0], p.webui.opts.img2img_background_color)
        size = tuple(int(side * scale) for side in start.size)
        start = start.resize(size, Image.Resampling.LANCZOS)
        repeats = p.n_iter
        quiet(p)
        results, infos = zip(*(self.painted(p, start, overlap) for _ in range(repeats)), strict=True)
        return Processed(p, list(results), [infos[-1]] * repeats)

    def painted(self, p: Any, start: Image.Image, overlap: int) -> tuple[Image.Image, str]:
        """The enlarged picture with each tile painted anew, saved; what a stopped job lacks is black."""
        grid = self.images.split_grid(start, tile_w=p.width, tile_h=p.height, overlap=overlap)
        tiles, info = jobs_of(p, [cell[2] for cell in grid.cells])
        black = Image.new("RGB", (p.width, p.height))
        for cell, tile in zip(grid.cells, itertools.chain(tiles, itertools.repeat(black)), strict=False):
            cell[2] = tile
        joined = self.images.combine_grid(grid)
        self.save(p, joined, info)
        return joined, info


class PoorMansOutpainting(Selectable):
    """Paints around the picture by tiles; those within it stay."""

    def title(self) -> str:
        return "Poor man's outpainting"

    def run(self, p: Any, pixels: int, direction: list[str]) -> Processed:
        picture = p.init_images[0]
        left, up = (pixels * (name in direction) for name in ("left", "up"))
        right, down = (pixels * (name in direction) for name in ("right", "down"))
        size = picture.width + left + right, picture.height + up + down
        canvas, mask = Image.new("RGB", size), Image.new("L", size, 255)
        canvas.paste(picture, (left, up))
        mask.paste(0, (left, up, size[0] - right, size[1] - down))
        grid, masks = (self.images.split_grid(image, p.width, p.height, pixels) for image in (canvas, mask))
        quiet(p)
        p.batch_size = 1
        work = [place for place, cell in enumerate(masks.cells) if cell[2].getbbox()]

        def mask_of(number: int) -> None:
            p.image_mask = masks.cells[work[number]][2]

        results, info = jobs_of(p, [grid.cells[place][2] for place in work], mask_of)
        for number, place in enumerate(work):
            missing = number >= len(results)
            grid.cells[place][2] = Image.new("RGB", (p.width, p.height)) if missing else results[number]
        joined = self.images.combine_grid(grid)
        self.save(p, joined, info)
        return Processed(p, [joined], [info])


class OutpaintingMk2(Selectable):
    """Paints one side after the other from noise, on canvases of multiples of 64."""

    shift = 0  # for a test: the tile is not where it is expected

    def title(self) -> str:
        return "Outpainting mk2"

    def run(self, p: Any, pixels: int, direction: list[str]) -> Processed:
        first, repeats, joined = p.init_images[0], p.n_iter, []
        largest = p.width, p.height
        quiet(p)
        for _ in range(repeats):
            images = [first] * p.batch_size
            for axis, names in enumerate((("left", "right"), ("up", "down"))):
                chosen = [name for name in names if name in direction]
                total = round_up(first.size[axis] + pixels * len(chosen)) - first.size[axis]
                for name in chosen:
                    share = total // len(chosen) if name == chosen[0] else total - total // len(chosen)
                    images, info = self.side(p, images, (axis, name == names[0], share), largest)
            joined += images
        if len(joined) > 1:
            joined.insert(0, self.images.image_grid(joined))
        for image in joined[len(joined) > 1 :]:
            self.save(p, image, info)
        return Processed(p, joined, [info] * len(joined), int(len(joined) > 1))

    def side(self, p: Any, images: list[Image.Image], side: tuple, largest: tuple[int, int]) -> tuple[list, str]:
        """All pictures of the batch with one side painted."""
        axis, before, pixels = side
        size = images[0].size
        grown = tuple(length + pixels * (axis == number) for number, length in enumerate(size))
        whole = tuple(round_up(length) for length in grown)
        place = tuple(pixels * (before and axis == number) for number in (0, 1))
        tile = tuple(min(largest[number], grown[number]) if axis == number else whole[number] for number in (0, 1))
        corner = tuple(0 if before or axis != number else whole[number] - tile[number] for number in (0, 1))
        crop = (*corner, corner[0] + tile[0], corner[1] + tile[1])
        mask = Image.new("RGB", whole, "white")
        inner = [*place, place[0] + size[0], place[1] + size[1]]
        mask.paste("black", tuple(inner))
        canvases = [self.noised(image, mask, place) for image in images]
        p.width, p.height, p.image_mask = *tile, mask.crop(crop)
        p.init_images = [canvas.crop(crop) for canvas in canvases]
        processed = process_images(p)
        for canvas, result in zip(canvases, [processed.images[place] for place in range(len(images))], strict=True):
            canvas.paste(result, corner)
        return [canvas.crop((0, 0, *grown)) for canvas in canvases], processed.infotexts[0]

    def noised(self, image: Image.Image, mask: Image.Image, place: tuple[int, int]) -> Image.Image:
        """The picture at its place in noise; colours may lose a level."""
        noise = np.random.default_rng(0).integers(0, 255, (mask.height, mask.width, 3), dtype=np.uint8)
        canvas = Image.new("RGB", mask.size)
        canvas.paste(image, tuple(value + self.shift for value in place))
        canvas = Image.fromarray((np.asarray(canvas) // 2 * 2).astype(np.uint8))
        canvas.paste(Image.fromarray(noise), mask=mask.convert("L"))
        return canvas


def round_up(length: int) -> int:
    """To a multiple of 64."""
    return math.ceil(length / 64) * 64


class UltimateUpscale(Selectable):
    """Enlarges the picture, and has one rectangle after the other painted anew within the picture of the job before."""

    cuts = False  # for a test: jobs get a part of the picture

    def title(self) -> str:
        return "Ultimate SD upscale"

    def run(self, p: Any, tile: int, scale: float, passes: int) -> Processed:
        start = self.images.flatten(p.init_images[0], p.webui.opts.img2img_background_color)
        size = tuple(int(side * scale) for side in start.size)
        image, joined, info = start.resize(size, Image.Resampling.LANCZOS), [], None
        quiet(p)
        p.batch_size, p.inpaint_full_res, p.inpaint_full_res_padding = 1, True, 8
        p.setup_prompts()  # there may be no job
        for number in range(max(passes, 1)):
            if passes:
                image, info = self.painted(p, image, tile // (number + 1))
            joined.append(image)
            self.save(p, image, info or "")
        return Processed(p, joined, [info or ""] * len(joined))

    def painted(self, p: Any, image: Image.Image, tile: int) -> tuple[Image.Image, str]:
        """All rectangles painted anew; what a stopped job lacks stays."""
        for y, x in itertools.product(range(0, image.height, tile), range(0, image.width, tile)):
            if p.webui.state.interrupted:
                break
            box = x, y, min(x + tile, image.width), min(y + tile, image.height)
            mask = Image.new("L", image.size)
            mask.paste(255, box)
            p.init_images, p.image_mask = [image], mask
            if self.cuts:
                p.init_images, p.image_mask = [image.crop(box)], mask.crop(box)
            processed = process_images(p)
            if self.cuts:
                image.paste(processed.images[0].convert("RGB"), box)
            elif processed.images:
                image = processed.images[0]
        return image, processed.infotexts[0]


class Loop(Selectable):
    """Each job starts from the picture of the one before."""

    def title(self) -> str:
        return "Loopback"

    def run(self, p: Any, loops: int) -> Processed:
        for _ in range(loops):
            processed = process_images(p)
            p.init_images = [processed.images[0]]
        return processed


class Flattening(Selectable):
    """One of another extension, which joins by itself."""

    def title(self) -> str:
        return "Other upscale"

    def run(self, p: Any) -> Processed:
        quiet(p)
        processed = process_images(p)
        return Processed(p, [image.convert("RGB") for image in processed.images], processed.infotexts)


KINDS = (SDUpscale, PoorMansOutpainting, OutpaintingMk2, UltimateUpscale, Loop, Flattening)


def run_script(webui: Any, kind: type, layer: Any, *values: Any, **fields: Any) -> Outcome:
    """A job with this script chosen; `layer` as in `fakes.running.run`, `values` are the script's own arguments."""
    p = job(webui, layer, **fields)
    runner = p.scripts
    number = next(place for place, script in enumerate(runner.selectable_scripts) if type(script) is kind)
    script, ours = runner.selectable_scripts[number], runner.ours
    before = ours.args_from, ours.args_to
    ours.args_from, ours.args_to = 1, 1 + len(p.script_args)
    script.args_from, script.args_to = ours.args_to, ours.args_to + len(values)
    arguments = [number + 1, *p.script_args, *values]
    p.script_args = tuple(arguments)  # as a WebUI has them: of all scripts
    try:
        return Outcome(p, run_closing(webui, p, lambda p: runner.run(p, *arguments)), None)
    finally:
        ours.args_from, ours.args_to = before
