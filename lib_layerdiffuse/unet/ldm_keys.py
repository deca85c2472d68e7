"""Names of parameters and modules: LDM (WebUIs, published files) <-> diffusers, both ways by one table of blocks.

The table of a network is a list of rows (LDM path, diffusers path, inner names); every other function reads it.
It is built from the network's configuration, so it holds for SD1.5, SDXL and small models alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch

Names = tuple[tuple[str, str], ...]

SAME: Names = ()
UNET_RESNET: Names = (
    ("in_layers.0", "norm1"),
    ("in_layers.2", "conv1"),
    ("emb_layers.1", "time_emb_proj"),
    ("out_layers.0", "norm2"),
    ("out_layers.3", "conv2"),
    ("skip_connection", "conv_shortcut"),
)
VAE_RESNET: Names = (("nin_shortcut", "conv_shortcut"),)
VAE_ATTENTION: Names = (
    ("norm", "group_norm"),
    ("q", "to_q"),
    ("k", "to_k"),
    ("v", "to_v"),
    ("proj_out", "to_out.0"),
)


@dataclass(frozen=True)
class Row:
    """A block: its path in LDM and in diffusers, and how the names inside it differ."""

    ldm: str
    diffusers: str
    inner: Names = SAME


class KeyTable:
    """Translates paths of parameters and modules; unknown paths give None."""

    def __init__(self, rows: Iterable[Row]):
        self.rows = list(rows)
        self._from_ldm = {row.ldm: (row.diffusers, row.inner) for row in self.rows}
        self._from_diffusers = {
            row.diffusers: (row.ldm, tuple((theirs, ours) for ours, theirs in row.inner)) for row in self.rows
        }

    def to_diffusers(self, path: str) -> str | None:
        """`input_blocks.1.0.in_layers.0.weight` -> `down_blocks.0.resnets.0.norm1.weight`."""
        return _translate(path, self._from_ldm)

    def to_ldm(self, path: str) -> str | None:
        """`down_blocks.0.resnets.0.norm1.weight` -> `input_blocks.1.0.in_layers.0.weight`."""
        return _translate(path, self._from_diffusers)

    def ldm_name(self, path: str) -> str:
        """`to_ldm` of a name that the network has; KeyError for any other."""
        name = self.to_ldm(path)
        if name is None:
            raise KeyError(path)
        return name


def _translate(path: str, table: Mapping[str, tuple[str, Names]]) -> str | None:
    head, tail = path, ""
    while head not in table:
        head, _, last = head.rpartition(".")
        if not head:
            return None
        tail = f"{last}.{tail}" if tail else last
    target, inner = table[head]
    for source_name, target_name in inner:
        if tail == source_name or tail.startswith(source_name + "."):
            tail = target_name + tail[len(source_name) :]
            break
    return f"{target}.{tail}" if tail else target


def unet_table(config: Mapping[str, Any]) -> KeyTable:
    """The table of a UNet2DConditionModel's `config`; LDM paths without `diffusion_model.`."""
    return KeyTable(_unet_rows(config))


def _unet_rows(config: Mapping[str, Any]) -> Iterator[Row]:
    yield from (
        Row("input_blocks.0.0", "conv_in"),
        Row("time_embed.0", "time_embedding.linear_1"),
        Row("time_embed.2", "time_embedding.linear_2"),
        Row("label_emb.0.0", "add_embedding.linear_1"),
        Row("label_emb.0.2", "add_embedding.linear_2"),
        Row("middle_block.0", "mid_block.resnets.0", UNET_RESNET),
        Row("middle_block.1", "mid_block.attentions.0"),
        Row("middle_block.2", "mid_block.resnets.1", UNET_RESNET),
        Row("out.0", "conv_norm_out"),
        Row("out.2", "conv_out"),
    )
    blocks = _blocks_per_level(config)
    yield from _unet_down_rows(config["down_block_types"], blocks)
    yield from _unet_up_rows(config["up_block_types"], blocks[::-1])


def _blocks_per_level(config: Mapping[str, Any]) -> list[int]:
    blocks, levels = config["layers_per_block"], len(config["down_block_types"])
    return [blocks] * levels if isinstance(blocks, int) else list(blocks)


def _unet_down_rows(types: list[str], blocks: list[int]) -> Iterator[Row]:
    place = 1
    for level, kind in enumerate(types):
        for block in range(blocks[level]):
            yield Row(f"input_blocks.{place}.0", f"down_blocks.{level}.resnets.{block}", UNET_RESNET)
            if "Attn" in kind:
                yield Row(f"input_blocks.{place}.1", f"down_blocks.{level}.attentions.{block}")
            place += 1
        if level < len(types) - 1:
            yield Row(f"input_blocks.{place}.0.op", f"down_blocks.{level}.downsamplers.0.conv")
            place += 1


def _unet_up_rows(types: list[str], blocks: list[int]) -> Iterator[Row]:
    place = 0
    for level, kind in enumerate(types):
        for block in range(blocks[level] + 1):
            yield Row(f"output_blocks.{place}.0", f"up_blocks.{level}.resnets.{block}", UNET_RESNET)
            if "Attn" in kind:
                yield Row(f"output_blocks.{place}.1", f"up_blocks.{level}.attentions.{block}")
            if block == blocks[level] and level < len(types) - 1:
                part = 2 if "Attn" in kind else 1  # the upsampler is the last module of its block
                yield Row(f"output_blocks.{place}.{part}.conv", f"up_blocks.{level}.upsamplers.0.conv")
            place += 1


def vae_table(config: Mapping[str, Any]) -> KeyTable:
    """The table of an AutoencoderKL's `config`; LDM paths without `first_stage_model.`."""
    return KeyTable(_vae_rows(len(config["block_out_channels"]), config["layers_per_block"]))


def _vae_rows(levels: int, blocks: int) -> Iterator[Row]:
    yield from (Row("quant_conv", "quant_conv"), Row("post_quant_conv", "post_quant_conv"))
    for half in ("encoder", "decoder"):
        yield from (
            Row(f"{half}.conv_in", f"{half}.conv_in"),
            Row(f"{half}.conv_out", f"{half}.conv_out"),
            Row(f"{half}.norm_out", f"{half}.conv_norm_out"),
            Row(f"{half}.mid.block_1", f"{half}.mid_block.resnets.0", VAE_RESNET),
            Row(f"{half}.mid.block_2", f"{half}.mid_block.resnets.1", VAE_RESNET),
            Row(f"{half}.mid.attn_1", f"{half}.mid_block.attentions.0", VAE_ATTENTION),
        )
    for level in range(levels):
        down, up = f"encoder.down.{level}", f"decoder.up.{levels - 1 - level}"
        theirs_down, theirs_up = f"encoder.down_blocks.{level}", f"decoder.up_blocks.{level}"
        for block in range(blocks + 1):
            if block < blocks:
                yield Row(f"{down}.block.{block}", f"{theirs_down}.resnets.{block}", VAE_RESNET)
            yield Row(f"{up}.block.{block}", f"{theirs_up}.resnets.{block}", VAE_RESNET)
        yield Row(f"{down}.downsample.conv", f"{theirs_down}.downsamplers.0.conv")
        yield Row(f"{up}.upsample.conv", f"{theirs_up}.upsamplers.0.conv")


def unet_modules(unet: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Every module of a diffusers UNet that a layer file may name, by its LDM path (without `diffusion_model.`).

    Flux's transformer keeps diffusers' names: its files come in both namings.
    """
    if hasattr(unet, "single_transformer_blocks"):
        return {name: module for name, module in unet.named_modules() if name}
    table = unet_table(cast("Mapping[str, Any]", unet.config))  # diffusers' own attribute
    paths = ((table.to_ldm(name), module) for name, module in unet.named_modules() if name)
    return {path: module for path, module in paths if path}


def unet_to_diffusers(state: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """An LDM UNet's tensors (no prefix) under diffusers' names; shapes are the same."""
    return _renamed(state, unet_table(config).to_diffusers)


def unet_to_ldm(state: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The inverse of `unet_to_diffusers`."""
    return _renamed(state, unet_table(config).to_ldm)


def vae_to_diffusers(state: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """An LDM autoencoder's tensors under diffusers' names; attention's 1x1 convolutions become linear layers."""
    renamed = _renamed(state, vae_table(config).to_diffusers)
    return {name: t[:, :, 0, 0] if _is_vae_attention(name) and t.ndim == 4 else t for name, t in renamed.items()}


def vae_to_ldm(state: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The inverse of `vae_to_diffusers`."""
    shaped = {name: t[:, :, None, None] if _is_vae_attention(name) and t.ndim == 2 else t for name, t in state.items()}
    return _renamed(shaped, vae_table(config).to_ldm)


def _is_vae_attention(name: str) -> bool:
    return ".attentions." in name and name.endswith(".weight")


def clip_to_transformers(state: Mapping[str, torch.Tensor], own: Iterable[str]) -> dict[str, torch.Tensor]:
    """`cond_stage_model.transformer.*` (prefix removed) under the names `own` that a CLIPTextModel uses.

    Releases of transformers differ in whether `text_model.` heads the names.
    """
    headed = any(name.startswith("text_model.") for name in own)
    plain = {name.removeprefix("text_model."): tensor for name, tensor in state.items()}
    wanted = {name.removeprefix("text_model.") for name in own}
    return {f"text_model.{name}" if headed else name: plain[name] for name in plain if name in wanted}


def clip_to_ldm(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A CLIPTextModel's tensors as the original checkpoints name them, the position buffer included."""
    renamed = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in state.items()}
    positions = renamed["text_model.embeddings.position_embedding.weight"].shape[0]
    renamed["text_model.embeddings.position_ids"] = torch.arange(positions)[None]
    return renamed


def _renamed(state: Mapping[str, torch.Tensor], translate: Any) -> dict[str, torch.Tensor]:
    renamed = {}
    for name, tensor in state.items():
        target = translate(name)
        if target is None:
            raise KeyError(f"no counterpart for the parameter {name}")
        renamed[target] = tensor
    return renamed
