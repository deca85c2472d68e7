"""What this project uses of diffusers, as it behaves: its own annotations give a tuple or an object by a flag.

Names that are not here are of any type.
"""

from collections.abc import Mapping
from os import PathLike
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer
from typing_extensions import Self

Path = str | PathLike[str]

class ModelMixin(nn.Module):
    config: Any
    def __init__(self, **options: Any) -> None: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @classmethod
    def from_config(cls, config: Mapping[str, Any], **options: Any) -> Self: ...
    @classmethod
    def from_pretrained(cls, path: Path, **options: Any) -> Self: ...
    def save_pretrained(self, path: Path, **options: Any) -> None: ...
    def register_to_config(self, **values: Any) -> None: ...
    def enable_gradient_checkpointing(self) -> None: ...
    def set_attn_processor(self, processor: Any) -> None: ...

class Posterior:
    mean: Tensor
    std: Tensor
    logvar: Tensor
    def kl(self) -> Tensor: ...
    def mode(self) -> Tensor: ...
    def sample(self) -> Tensor: ...

class Encoded:
    latent_dist: Posterior

class Sample:
    sample: Tensor

class Decoder(nn.Module):
    conv_in: nn.Conv2d

class AutoencoderKL(ModelMixin):
    encoder: nn.Module
    decoder: Decoder
    quant_conv: nn.Conv2d | None  # none in Flux's
    post_quant_conv: nn.Conv2d | None
    def encode(self, x: Tensor) -> Encoded: ...
    @overload
    def decode(self, z: Tensor, return_dict: Literal[True] = True) -> Sample: ...
    @overload
    def decode(self, z: Tensor, return_dict: Literal[False]) -> tuple[Tensor]: ...
    def enable_tiling(self) -> None: ...

class UNet2DConditionModel(ModelMixin):
    conv_in: nn.Conv2d
    def __call__(self, sample: Tensor, timestep: Any, encoder_hidden_states: Tensor, **options: Any) -> Sample: ...

class FluxTransformer2DModel(ModelMixin):
    transformer_blocks: nn.ModuleList
    single_transformer_blocks: nn.ModuleList
    x_embedder: nn.Linear
    def __call__(self, hidden_states: Tensor, **options: Any) -> Any: ...

class ControlNetModel(ModelMixin):
    controlnet_cond_embedding: nn.Module
    @classmethod
    def from_unet(cls, unet: UNet2DConditionModel, **options: Any) -> Self: ...
    def __call__(self, sample: Tensor, timestep: Any, encoder_hidden_states: Tensor, **options: Any) -> Any: ...

class DDIMScheduler:
    config: Any
    alphas_cumprod: Tensor
    def __init__(self, **options: Any) -> None: ...

class DiffusionPipeline:
    """Any pipeline of a text encoder, a UNet and a VAE."""

    vae: AutoencoderKL
    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: Any
    components: dict[str, Any]
    def __init__(self, **parts: Any) -> None: ...
    def __call__(self, prompt: Any = None, **options: Any) -> Any: ...
    def __getattr__(self, name: str) -> Any: ...
    def to(self, *places: Any) -> Self: ...
    def encode_prompt(self, *arguments: Any, **options: Any) -> tuple[Any, ...]: ...
    def set_progress_bar_config(self, **options: Any) -> None: ...
    def save_pretrained(self, path: Path, **options: Any) -> None: ...
    @classmethod
    def from_pretrained(cls, path: Path, **options: Any) -> Self: ...

class StableDiffusionPipeline(DiffusionPipeline): ...

def __getattr__(name: str) -> Any: ...
