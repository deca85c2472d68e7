"""Keys and shapes of the published weight files that are known for certain, from a few numbers each."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

Shape = tuple[int, ...]
Layout = dict[str, Shape]

OFFSET_KEY = re.compile(r"^diffusion_model\.(?P<parameter>.+\.(?:weight|bias))::(?P<kind>lora|diff)::(?P<index>\d+)$")
SHARING_PREFIX = "hookers.layers."
CONTROL_PREFIX = "kwargs_encoder."
PROJECTIONS = ("to_q", "to_k", "to_v", "to_out")
CONTROL_WIDTHS = ((32, 32, 64, 64, 128, 128, 256, 256), (256, 256), (256, 256), (256, 256))


@dataclass(frozen=True)
class SharingShape:
    """The numbers that fix the layout of an attention sharing file; `widths` has one hidden size per pair of units.

    `encoder`: the widths of the control encoder's convolutions, one block for each depth of the UNet.
    """

    frames: int
    widths: tuple[int, ...]
    context: int = 768
    rank: int = 256
    control: bool = False
    encoder: tuple[tuple[int, ...], ...] = CONTROL_WIDTHS


SD15_WIDTHS = (320, 320, 640, 640, 1280, 1280, 1280, 1280, 1280, 640, 640, 640, 320, 320, 320, 1280)
SD15_BLOCKS = (
    *(f"input_blocks.{n}" for n in (1, 2, 4, 5, 7, 8)),
    *(f"output_blocks.{n}" for n in range(3, 12)),
    "middle_block",
)
XL_TRANSFORMERS = (  # path, hidden size, depth
    *((f"input_blocks.{n}", 640, 2) for n in (4, 5)),
    *((f"input_blocks.{n}", 1280, 10) for n in (7, 8)),
    ("middle_block", 1280, 10),
    *((f"output_blocks.{n}", 1280, 10) for n in (0, 1, 2)),
    *((f"output_blocks.{n}", 640, 2) for n in (3, 4, 5)),
)


def unit_paths() -> tuple[str, ...]:
    """LDM paths of the attention layers that the 32 units of an SD1.5 file belong to, in their order."""
    return tuple(
        f"{block}.1.transformer_blocks.0.{attention}" for block in SD15_BLOCKS for attention in ("attn1", "attn2")
    )


def sharing_layout(shape: SharingShape) -> Layout:
    """Keys and shapes of an attention sharing file."""
    layout: Layout = {}
    for index in range(2 * len(shape.widths)):
        width = shape.widths[index // 2]
        source = shape.context if index % 2 else width
        unit = _unit_layout(shape, width, source)
        layout.update({f"{SHARING_PREFIX}{index}.{key}": value for key, value in unit.items()})
    if shape.control:
        encoder = control_encoder_layout(shape.encoder)
        layout.update({f"{CONTROL_PREFIX}{key}": value for key, value in encoder.items()})
    return layout


def _unit_layout(shape: SharingShape, width: int, source: int) -> Layout:
    """One unit; `source` is the width of what keys and values are made from."""
    layout: Layout = {}
    for projection in PROJECTIONS:
        width_in = source if projection in ("to_k", "to_v") else width
        for frame in range(shape.frames):
            layout[f"{projection}_lora.{frame}.down.weight"] = (shape.rank, width_in)
            layout[f"{projection}_lora.{frame}.up.weight"] = (width, shape.rank)
    for name in "inqkvo":
        weight = (width,) if name == "n" else (width, width)
        layout.update(_layer(f"temporal_{name}", weight))
    for frame in range(shape.frames if shape.control else 0):
        signal = shape.encoder[-1][-1]
        layout.update(_layer(f"control_convs.{frame}.0", (signal, signal, 3, 3)))
        layout.update(_layer(f"control_convs.{frame}.2", (width, signal, 1, 1)))
    return layout


def control_encoder_layout(blocks: Sequence[Sequence[int]] = CONTROL_WIDTHS) -> Layout:
    """Keys and shapes of the control encoder: 3x3 convolutions with an activation between them."""
    layout, channels = {}, 3
    for block, widths in enumerate(blocks):
        for place, width in enumerate(widths):
            layout.update(_layer(f"blocks_{block}.{2 * place}", (width, channels, 3, 3)))
            channels = width
    return layout


def encoder_layout(widths: Sequence[int] = (32, 64, 128, 256), latent_channels: int = 4) -> Layout:
    """Keys and shapes of a transparency encoder: two 3x3 convolutions per width, then one to the latent."""
    layout, channels = {}, 4
    every = [width for width in widths for _ in range(2)] + [latent_channels]
    for place, width in enumerate(every):
        layout.update(_layer(f"blocks.{2 * place}", (width, channels, 3, 3)))
        channels = width
    return layout


def decoder_layout(
    channels: Sequence[int] = (32, 32, 64, 128, 256, 512, 512), latent_channels: int = 4, attention_levels: int = 3
) -> Layout:
    """Keys and shapes of a transparency decoder with the latent added before down level 3."""
    layout = {**_layer("conv_in", (channels[0], 3, 3, 3))}
    layout.update(_layer("latent_conv_in", (channels[2], latent_channels, 1, 1)))
    levels, skips = len(channels), [channels[0]]
    width = channels[0]
    for level, wide in enumerate(channels):
        block = f"down_blocks.{level}"
        for place in range(2):
            layout.update(_residual(f"{block}.resnets.{place}", width, wide))
            width = wide
        skips += [wide, wide]
        if level >= levels - attention_levels:
            layout.update(_attentions(block, 2, wide))
        if level < levels - 1:
            layout.update(_layer(f"{block}.downsamplers.0.conv", (wide, wide, 3, 3)))
            skips.append(wide)
    layout.update(_attentions("mid_block", 1, width))
    for place in range(2):
        layout.update(_residual(f"mid_block.resnets.{place}", width, width))
    for level, wide in enumerate(reversed(channels)):
        block = f"up_blocks.{level}"
        for place in range(3):
            layout.update(_residual(f"{block}.resnets.{place}", width + skips.pop(), wide))
            width = wide
        if level < attention_levels:
            layout.update(_attentions(block, 3, wide))
        if level < levels - 1:
            layout.update(_layer(f"{block}.upsamplers.0.conv", (wide, wide, 3, 3)))
    layout.update(_layer("conv_norm_out", (width,)))
    layout.update(_layer("conv_out", (4, width, 3, 3)))
    return layout


def codec_layout(latent_channels: int = 16) -> Layout:
    """Keys and shapes of decoder and encoder in one file, as Flux has them; the published one may hold a VAE too."""
    parts = {"decoder": decoder_layout(latent_channels=latent_channels)}
    parts["encoder"] = encoder_layout(latent_channels=latent_channels)
    return {f"{part}.{key}": shape for part, layout in parts.items() for key, shape in layout.items()}


def xl_attention_layout(context: int = 2048, rank: int = 256) -> Layout:
    """Keys and shapes of the SDXL file with low-rank offsets of every attention projection."""
    layout: Layout = {}
    for block, width, depth in XL_TRANSFORMERS:
        for attention in (
            f"{block}.1.transformer_blocks.{n}.{name}" for n in range(depth) for name in ("attn1", "attn2")
        ):
            source = context if attention.endswith("attn2") else width
            for projection, width_in in zip(
                ("to_q", "to_k", "to_v", "to_out.0"), (width, source, source, width), strict=True
            ):
                key = f"diffusion_model.{attention}.{projection}.weight::lora::"
                layout[key + "0"], layout[key + "1"] = (width, rank), (rank, width_in)
    return layout


def _layer(name: str, weight: Shape) -> Layout:
    return {f"{name}.weight": weight, f"{name}.bias": weight[:1]}


def _residual(name: str, width_in: int, width: int) -> Layout:
    layout = {
        **_layer(f"{name}.norm1", (width_in,)),
        **_layer(f"{name}.conv1", (width, width_in, 3, 3)),
        **_layer(f"{name}.norm2", (width,)),
        **_layer(f"{name}.conv2", (width, width, 3, 3)),
    }
    if width_in != width:
        layout.update(_layer(f"{name}.conv_shortcut", (width, width_in, 1, 1)))
    return layout


def _attentions(block: str, count: int, width: int) -> Layout:
    layout: Layout = {}
    for place in range(count):
        layout.update(_layer(f"{block}.attentions.{place}.group_norm", (width,)))
        for projection in ("to_q", "to_k", "to_v", "to_out.0"):
            layout.update(_layer(f"{block}.attentions.{place}.{projection}", (width, width)))
    return layout


PUBLISHED: dict[str, Callable[[], Layout]] = {
    "layer_sd15_transparent_attn": partial(sharing_layout, SharingShape(1, SD15_WIDTHS)),
    "layer_sd15_joint": partial(sharing_layout, SharingShape(3, SD15_WIDTHS)),
    "layer_sd15_fg2bg": partial(sharing_layout, SharingShape(2, SD15_WIDTHS, control=True)),
    "layer_sd15_bg2fg": partial(sharing_layout, SharingShape(2, SD15_WIDTHS, control=True)),
    "layer_sd15_vae_transparent_encoder": encoder_layout,
    "vae_transparent_encoder": encoder_layout,
    "layer_sd15_vae_transparent_decoder": decoder_layout,
    "vae_transparent_decoder": decoder_layout,
    "layer_xl_transparent_attn": xl_attention_layout,
}


def expected_keys(stem: str) -> Layout | None:
    """Keys and shapes of a published file by its name; None for files whose layout the model at hand decides."""
    return PUBLISHED[stem]() if stem in PUBLISHED else None
