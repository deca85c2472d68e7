"""Real networks with the block structures of SD1.5, SDXL and the demo model, narrow, with weights by rule R1."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from hosts.webui.checkpoints import DECODER_CHANNELS, Checkpoint, write_layer_files
from ldm.modules import attention
from ldm.modules.attention import BasicTransformerBlock, SpatialTransformer
from ldm.modules.diffusionmodules import model, openaimodel
from ldm.modules.diffusionmodules.model import Decoder, Encoder
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from ldm.modules.diffusionmodules.util import GroupNorm32
from ldm.modules.distributions.distributions import DiagonalGaussianDistribution
from rule import file_value, value
from safetensors.torch import save_file
from torch import nn

from fakes.flux import FluxTransformer, kohya_state, peft_state
from lib_layerdiffuse.core.files.layouts import decoder_layout, encoder_layout

CONTEXT = {"sd15": 64, "sdxl": 96, "demo": 48}
VECTOR = 24  # SDXL's pooled conditioning
SCALE_FACTOR = {"sd15": 0.18215, "sdxl": 0.13025, "demo": 1.0}
COMMON = {"image_size": 8, "in_channels": 4, "out_channels": 4, "model_channels": 16, "num_res_blocks": 2}
UNETS = {
    "sd15": {"attention_resolutions": [4, 2, 1], "channel_mult": [1, 2, 2, 2], "transformer_depth": 1},
    "sdxl": {"attention_resolutions": [4, 2], "channel_mult": [1, 2, 2], "transformer_depth": 2},
    "demo": {
        "attention_resolutions": [2, 4],
        "channel_mult": [1, 2, 2],
        "transformer_depth": 1,
        "num_res_blocks": 1,
    },
}
AUTOENCODER = {
    "ch": 16,
    "out_ch": 3,
    "ch_mult": (1, 1, 1, 1),
    "num_res_blocks": 1,
    "attn_resolutions": [],
    "in_channels": 3,
    "resolution": 64,
    "z_channels": 4,
}


class Evening:
    """torch for LDM's UNet as WebUIs give it: sides that cannot be halved evenly are brought to those of the skip."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def cat(self, tensors: list[torch.Tensor], **named: Any) -> torch.Tensor:
        """Joined, the first at the size of the second."""
        first, *others = tensors
        if len(others) == 1 and first.shape[-2:] != others[0].shape[-2:]:
            first = nn.functional.interpolate(first, others[0].shape[-2:], mode="nearest")
        return torch.cat([first, *others], **named)


openaimodel.th = Evening()


def narrow_norm(channels: int, **_groups: int) -> nn.GroupNorm:
    """LDM's group norm in eight groups instead of 32, so that networks can have less than 32 channels."""
    return nn.GroupNorm(8, channels, eps=1e-6)


attention.Normalize = model.Normalize = narrow_norm
openaimodel.normalization = functools.partial(GroupNorm32, 8)


class Pool:
    """Networks of tests that are over, to be used again: building one takes longer than a job."""

    def __init__(self) -> None:
        self.waiting: dict[Any, list[nn.Module]] = {}
        self.lent: list[tuple[Any, nn.Module]] = []

    def take(self, key: Any, build: Callable[[], nn.Module]) -> nn.Module:
        """A network of this kind, of any values."""
        waiting = self.waiting.get(key)
        network = waiting.pop() if waiting else build()
        self.lent.append((key, network))
        return network

    def give_back(self) -> None:
        """The end of a test; a network that it left in any way unusual is not used again."""
        for key, network in self.lent:
            if is_clean(network):
                self.waiting.setdefault(key, []).append(network)
        self.lent.clear()


POOL = Pool()


def is_clean(network: nn.Module) -> bool:
    """Whether nothing was put on the network or on its parameters; asked after every test, so without `state_dict`."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_load_state_dict_pre_hooks")
    insides = [module.__dict__ for module in network.modules()]
    if any("forward" in inside or any(map(inside.__getitem__, hooks)) for inside in insides):
        return False
    held = [inside[kind].values() for inside in insides for kind in ("_parameters", "_buffers")]
    return not any(one.is_meta or one.is_inference() for tensors in held for one in tensors if one is not None)


def build_unet(base: str) -> UNetModel:
    """An LDM UNet: SD1.5 with all sixteen places of transformers, SDXL with its vector and deeper ones, or the demo."""
    sdxl = base == "sdxl"
    with contextlib.redirect_stdout(io.StringIO()):
        unet = UNetModel(
            **COMMON | UNETS[base],
            num_heads=8,
            use_spatial_transformer=True,
            context_dim=[CONTEXT[base]] * UNETS[base]["transformer_depth"],
            use_linear_in_transformer=sdxl,
            num_classes=1 if sdxl else None,
            legacy=False,
        )
    for block in unet.modules():
        if isinstance(block, BasicTransformerBlock):
            block.checkpoint = False
        if isinstance(block, SpatialTransformer):
            block.__class__ = Transformer
    if sdxl:  # the package's release knows no vectors; the layers are those of SDXL's checkpoints
        width = unet.time_embed[2].out_features
        layers = (nn.Linear(VECTOR, width), nn.SiLU(), nn.Linear(width, width))
        unet.label_emb = nn.Sequential(nn.Sequential(*layers))
    return unet.eval().requires_grad_(False)


class Transformer(SpatialTransformer):
    """LDM's transformer; the package's release wants the context once for each of its blocks."""

    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(x, [context] * len(self.transformer_blocks))


class Autoencoder(nn.Module):
    """LDM's autoencoder of four channels and factor 8, without its training parts."""

    def __init__(self) -> None:
        super().__init__()
        with contextlib.redirect_stdout(io.StringIO()):
            self.encoder, self.decoder = Encoder(**AUTOENCODER, double_z=True), Decoder(**AUTOENCODER)
        self.quant_conv, self.post_quant_conv = nn.Conv2d(8, 8, 1), nn.Conv2d(4, 4, 1)
        self.eval().requires_grad_(False)

    @property
    def dtype(self) -> torch.dtype:
        return self.quant_conv.weight.dtype

    def encode(self, image: torch.Tensor) -> DiagonalGaussianDistribution:
        """Image [B,3,H,W] in [-1,1] -> posterior."""
        return DiagonalGaussianDistribution(self.quant_conv(self.encoder(image)))

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """VAE-space latent [B,4,h,w] -> image in about [-1,1]."""
        return self.decoder(self.post_quant_conv(latent))


@functools.cache
def shapes(base: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a whole checkpoint."""
    parts = (("model.diffusion_model.", build_unet(base)), ("first_stage_model.", Autoencoder()))
    return {
        prefix + name: tuple(tensor.shape) for prefix, module in parts for name, tensor in module.state_dict().items()
    }


@functools.cache
def state_of(base: str, name: str) -> Mapping[str, torch.Tensor]:
    """The float32 tensors of the checkpoint called `name`."""
    scales = {"first_stage_model.decoder.conv_out.weight": 0.5}
    return {key: value(f"{name}/{key}", shape, scales.get(key, 1.0)) for key, shape in shapes(base).items()}


def fill(network: nn.Module, state: Mapping[str, torch.Tensor], prefix: str) -> None:
    """Read a checkpoint into a network that nobody has seen yet: quicker than `load_state_dict`."""
    named = dict(network.named_parameters())
    with torch.no_grad():
        torch._foreach_copy_(list(named.values()), [state[prefix + name] for name in named])
    for module in network.modules():
        for name in ("network_current_names", "network_weights_backup", "network_bias_backup"):
            vars(module).pop(name, None)


def write_all_layers(folder: Path) -> Path:
    """The layer files of all bases for the widths of these networks."""
    folder.mkdir(parents=True, exist_ok=True)
    for base in UNETS:
        unet = part_shapes(base)
        write_layer_files(Checkpoint(base, folder / f"{base}.safetensors", unet), folder)
    write_flux_layers(folder)
    return folder


def write_flux_layers(folder: Path) -> None:
    """A LoRA for small Flux transformers in each layout, and decoder and encoder in one file."""
    network = FluxTransformer()
    transformer = FluxTransformer2DModel(**network.shape.diffusers)
    save_file(kohya_state(network, "layerlora"), folder / "layerlora.safetensors")
    save_file(peft_state(transformer, "flux_peft"), folder / "flux_peft.safetensors")
    layouts = {"encoder": encoder_layout(latent_channels=16), "decoder": decoder_layout(DECODER_CHANNELS, 16)}
    codec = {
        f"{part}.{key}": file_value(f"flux_vae_transparent_{part}", key, shape)
        for part, layout in layouts.items()
        for key, shape in layout.items()
    }
    save_file(codec | {"sd_vae.quant_conv.bias": torch.zeros(8)}, folder / "TransparentVAE.safetensors")


def part_shapes(base: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the UNet alone."""
    prefix = "model.diffusion_model."
    return {key.removeprefix(prefix): shape for key, shape in shapes(base).items() if key.startswith(prefix)}
