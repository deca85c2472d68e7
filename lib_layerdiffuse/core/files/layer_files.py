"""What a weight file is for, told by its header alone: a method, a decoder, an encoder or both, and what it fits.

Our training says it in the file's metadata, under names that begin with `layerdiffuse_`; files without them are known
by their keys and shapes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..bases import BASES, UNET, LatentSpace
from ..errors import WeightsError
from ..methods import ATTENTION_SHARING, LORA, METHODS, OFFSETS, Method, base_of_stem
from .codec_parts import DECODER, ENCODER, PARTS, shapes_below
from .layouts import CONTROL_PREFIX, OFFSET_KEY, SHARING_PREFIX
from .lora_keys import fits_network, is_lora, pairs_of
from .weights import Shape, read_header

METHOD, CODEC = "method", "decoder and encoder"
UNET_BASES = tuple(base.id for base in BASES.values() if base.network == UNET)
MOST_FRAMES = 8
SAID = "layerdiffuse_"  # begins what our training says in a file's metadata
SAMPLES = 32  # parameters by which a UNet is told from another
INPUT_CONVOLUTION = "input_blocks.0.0.weight"
ENCODER_KEY = re.compile(r"blocks\.\d+\.(weight|bias)")
CONTEXTS = {768: "sd15", 2048: "sdxl"}  # width of the text that cross attention sees; others: the demo model's kind
UNIT_QUERY = re.compile(rf"{re.escape(SHARING_PREFIX)}(\d+)\.to_q_lora\.0\.down\.weight")
QUERY, KEY = ".to_q.weight", ".to_k.weight"
Shapes = Mapping[str, Shape]


@dataclass(frozen=True)
class Contents:
    """What a file holds: its part, the bases it may be for, and of a method its kind and the ids it can stand for.

    `sample` are some of the UNet's parameters that it has offsets for, as (name, rows, columns); `units`, of attention
    sharing, the widths (hidden, what it attends to) of the layers that they belong to.
    """

    part: str
    bases: tuple[str, ...]
    kind: str = ""
    methods: tuple[str, ...] = ()
    sample: tuple[tuple[str, int, int], ...] = ()
    units: tuple[tuple[int, int], ...] = ()

    def holds(self, part: str) -> bool:
        """Whether the file has this part."""
        return self.part == part or (self.part == CODEC and part in PARTS)

    def fits_unet(self, parameters: Shapes) -> bool:
        """Whether a UNet with these parameters, by LDM name, has what the file has offsets or units for."""
        if self.units and sorted(self.units) != sorted(attention_widths(parameters)):
            return False
        return all(flat(parameters.get(name) or (0,)) == (rows, columns) for name, rows, columns in self.sample)


@dataclass(frozen=True)
class LoraContents(Contents):
    """A LoRA of a transformer, whose layers are called in one of two ways; `sample` has the names in the file."""

    def fits_unet(self, parameters: Shapes) -> bool:
        return fits_network(((name, columns) for name, _, columns in self.sample), parameters)


def metadata_of(part: str, space: LatentSpace, method: str = "") -> dict[str, str]:
    """What a trained file says of itself."""
    said = {
        "part": part,
        "base": space.base,
        "method": method,
        "latent_channels": str(space.channels),
        "latent_factor": str(space.factor),
        "scale_factor": f"{space.scale_factor:g}",
        "shift_factor": f"{space.shift_factor:g}",
    }
    return {f"{SAID}{name}": value for name, value in said.items() if value}


def read_contents(path: Path) -> Contents | None:
    """What a file holds, from its header alone; None for one that is no layer file, or cannot be read."""
    try:
        metadata, shapes = read_header(path)
        return recognise(metadata, shapes, path.stem)
    except (WeightsError, OSError, RecursionError, MemoryError):
        return None


def recognise(metadata: Mapping[str, str], shapes: Shapes, stem: str = "") -> Contents | None:
    """What is in a file with this metadata, these shapes, and this name, which counts where it is a published one."""
    found = next((describe(shapes) for holds, describe in RECOGNISERS if holds(shapes)), None)
    if found is None:
        return None
    base = metadata.get(f"{SAID}base") or base_of_stem(stem)
    bases = tuple(one for one in found.bases if base in (one, None) and _has_latents(one, metadata))
    said = next((row for row in METHODS if metadata.get(f"{SAID}method", stem) in (row.id, row.weights)), None)
    methods = [row for row in METHODS if row.id in found.methods and row.base in bases]
    alike = [row.id for row in methods if said is None or _alike(row, said)]
    return replace(found, bases=bases, methods=tuple(alike))


def _alike(method: Method, other: Method) -> bool:
    """Whether weights for one of two methods may be used for the other."""
    return (method.images, method.frames, method.codec) == (other.images, other.frames, other.codec)


def _has_latents(base: str, metadata: Mapping[str, str]) -> bool:
    """Whether a base has the latents that a file says it is for; it may say nothing."""
    space = BASES[base].latents
    wanted = {f"{SAID}latent_channels": str(space.channels), f"{SAID}latent_factor": str(space.factor)}
    return all(metadata.get(name, value) == value for name, value in wanted.items())


def flat(shape: Shape) -> tuple[int, int]:
    """Rows and columns of a parameter as a matrix."""
    return shape[0], math.prod(shape[1:])


def stands_for(method: Method, contents: Contents) -> Method:
    """The method as it works with a file's weights: also a single picture of SD1.5 may be made by offsets."""
    return replace(method, kind=contents.kind)


# --- one recogniser for each kind of file


def _holds_offsets(shapes: Shapes) -> bool:
    return bool(shapes) and all(map(OFFSET_KEY.match, shapes))


def _offsets(shapes: Shapes) -> Contents:
    parameters = {match["parameter"]: None for match in map(OFFSET_KEY.match, shapes) if match}
    matrices = [(name, *matrix) for name in parameters if (matrix := _matrix(shapes, name)) is not None]
    wide = shapes.get(f"diffusion_model.{INPUT_CONVOLUTION}::diff::0", ())
    bases = _bases_of({name: columns for name, _, columns in matrices})
    rows = [m for m in METHODS if m.base in UNET_BASES and len(m.frames) == 1 and not m.control]
    methods = [m.id for m in rows if (m.input_channels == wide[1] if len(wide) == 4 else not m.concat)]
    narrow = sorted(row for row in matrices if row[0] != INPUT_CONVOLUTION)
    return Contents(METHOD, bases, OFFSETS, tuple(methods), tuple(narrow[:: max(1, len(narrow) // SAMPLES)]))


def _matrix(shapes: Shapes, name: str) -> tuple[int, int] | None:
    """Rows and columns of what is added to a parameter."""
    key = f"diffusion_model.{name}::"
    if shapes.get(f"{key}diff::0"):
        return flat(shapes[f"{key}diff::0"])
    up, down = (shapes.get(f"{key}lora::{index}") for index in (0, 1))
    return (up[0], flat(down)[1]) if up and down else None


def _bases_of(columns: Mapping[str, int]) -> tuple[str, ...]:
    """Bases by the width of the text or, where no cross attention is touched, by how the blocks are built."""
    context = next((width for name, width in columns.items() if name.endswith("attn2.to_k.weight")), None)
    if context is not None:
        return (CONTEXTS.get(context, "demo"),)
    deep = any("transformer_blocks.2." in name for name in columns)
    return ("sdxl",) if deep else UNET_BASES


def _lora(shapes: Shapes) -> Contents:
    rows = [
        (pair.layer.places(pair.layer.naming)[0].path, shapes[pair.keys["up"]], shapes[pair.keys["down"]])
        for pair in pairs_of(shapes, "the file")
    ]
    matrices = sorted((path, _last(up[:1]), _last(down)) for path, up, down in rows)
    methods = [method for method in METHODS if method.kind == LORA]
    bases = tuple(dict.fromkeys(method.base for method in methods))
    sample = tuple(matrices[:: max(1, len(matrices) // SAMPLES)])
    return LoraContents(METHOD, bases, LORA, tuple(method.id for method in methods), sample)


def _holds_sharing(shapes: Shapes) -> bool:
    return f"{SHARING_PREFIX}0.to_q_lora.0.down.weight" in shapes


def _sharing(shapes: Shapes) -> Contents:
    frames = sum(f"{SHARING_PREFIX}0.to_q_lora.{frame}.down.weight" in shapes for frame in range(MOST_FRAMES))
    control = any(key.startswith(CONTROL_PREFIX) for key in shapes)
    rows = [m for m in METHODS if m.kind == ATTENTION_SHARING and len(m.frames) == frames]
    methods = [m.id for m in rows if (m.control is not None) == control]
    units = tuple(
        (_last(shape), _last(shapes.get(f"{SHARING_PREFIX}{match[1]}.to_k_lora.0.down.weight")))
        for key, shape in shapes.items()
        if (match := UNIT_QUERY.fullmatch(key))
    )
    context = _last(shapes.get(f"{SHARING_PREFIX}1.to_k_lora.0.down.weight"))
    # a small model of SD1.5's layout may have text of any width
    bases = (CONTEXTS[context],) if context in CONTEXTS else ("sd15", "demo")
    return Contents(METHOD, bases, ATTENTION_SHARING, tuple(methods), units=units)


def attention_widths(parameters: Shapes) -> list[tuple[int, int]]:
    """Hidden size, and the width of what it attends to, of every attention layer of a UNet."""
    heads = [name.removesuffix(QUERY) for name in parameters if name.endswith(QUERY)]
    return [(_last(parameters[head + QUERY]), _last(parameters.get(head + KEY))) for head in heads]


def _last(shape: Shape | None) -> int:
    return shape[-1] if shape else 0


def _holds_decoder(shapes: Shapes) -> bool:
    ends = shapes.get("conv_in.weight", ()), shapes.get("conv_out.weight", ())
    return (
        [len(shape) for shape in ends] == [4, 4]
        and ends[1][0] == 4
        and len(shapes.get("latent_conv_in.weight", ())) == 4
    )


def _decoder(shapes: Shapes) -> Contents:
    channels = shapes["latent_conv_in.weight"][1]
    return Contents(DECODER, tuple(base.id for base in BASES.values() if base.latents.channels == channels))


def _holds_encoder(shapes: Shapes) -> bool:
    first = shapes.get("blocks.0.weight", ())
    return len(first) == 4 and first[1] == 4 and all(map(ENCODER_KEY.fullmatch, shapes))


def _encoder(shapes: Shapes) -> Contents:
    """Two convolutions a width and one to the latent; every width but the first halves the picture."""
    layers = len(shapes) // 2
    factor = 2 ** ((layers - 1) // 2 - 1)
    last = shapes.get(f"blocks.{2 * (layers - 1)}.bias", (0,))
    spaces = {base.id: base.latents for base in BASES.values()}
    fitting = [base for base, space in spaces.items() if ((space.channels,), space.factor) == (last, factor)]
    return Contents(ENCODER, tuple(fitting))


def _codec_parts(shapes: Shapes) -> list[Contents]:
    """What a combined file has of decoder and encoder, below their prefixes; other keys do not matter."""
    known = ((DECODER, _holds_decoder, _decoder), (ENCODER, _holds_encoder, _encoder))
    below = ((shapes_below(shapes, f"{part}."), holds, describe) for part, holds, describe in known)
    return [describe(own) for own, holds, describe in below if holds(own)]


def _holds_codec(shapes: Shapes) -> bool:
    return bool(_codec_parts(shapes))


def _codec(shapes: Shapes) -> Contents:
    parts = _codec_parts(shapes)
    bases = tuple(base for base in parts[0].bases if base in parts[-1].bases)
    return Contents(parts[0].part if len(parts) == 1 else CODEC, bases)


RECOGNISERS: tuple[tuple[Callable[[Shapes], bool], Callable[[Shapes], Contents]], ...] = (
    (_holds_offsets, _offsets),
    (_holds_sharing, _sharing),
    (is_lora, _lora),
    (_holds_decoder, _decoder),
    (_holds_encoder, _encoder),
    (_holds_codec, _codec),
)


def titles(bases: Iterable[str]) -> str:
    """Bases as a user reads them."""
    return " or ".join(BASES[base].title for base in bases) or "no base that this program knows"
