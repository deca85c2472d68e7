"""What the integration needs to know of a WebUI: where the networks are, how to make room, which quirks to settle.

`WebuiHost` is AUTOMATIC1111; `ForgeFamily` is whatever carries its networks in `forge_objects`. Chosen by what the
loaded model has, never by a version number.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn

from ...core.bases import BASES
from ...core.codec.codec import VaeLatent, to_vae_space
from ...core.errors import BaseMismatchError, InputError
from ...core.sharing.attention_sharing import origin
from ...core.stopping import stop_limit, stop_timestep
from .chosen import chosen_base
from .flux_networks import fault_of, is_flux, is_guided
from .modules import has_module, host_module, option
from .row_map import Row, step_rows
from .vae import Adjust, adjusted_posterior

logger = logging.getLogger(__name__)

SUPPORTED = "SD1.5, SDXL, Flux.1 or the demo model"
UNET_CHANNELS = 4  # that the UNets of these have at their input
REFINER_WIDTH = 384  # of the SDXL refiner's first convolution


class WebuiHost:
    """AUTOMATIC1111 with the loaded model `sd_model`, and the parts that all WebUIs share."""

    name = "AUTOMATIC1111"

    def __init__(self, sd_model: Any):
        self.sd_model = sd_model

    @property
    def unet(self) -> nn.Module:
        """The UNet with LDM module paths."""
        return self.sd_model.model.diffusion_model

    @property
    def vae(self) -> nn.Module:
        """The autoencoder; its `quant_conv` is where posteriors pass."""
        return self.sd_model.first_stage_model

    @property
    def device(self) -> torch.device:
        """Where this WebUI computes."""
        return computing_device()

    @property
    def scale_factor(self) -> float | None:
        """Factor between the VAE's latents and the sampler's, where the model tells it."""
        factor = getattr(self.sd_model, "scale_factor", None)
        return None if factor is None else float(factor)

    @property
    def base(self) -> str:
        """The base of the method table; BaseMismatchError for an architecture that no method is made for."""
        fault = self._foreign()
        if fault:
            raise BaseMismatchError(fault, SUPPORTED, "load such a checkpoint, or switch LayerDiffuse off")
        if getattr(self.sd_model, "is_sdxl", False):
            return "sdxl"
        return "demo" if self.scale_factor == BASES["demo"].scale_factor else "sd15"

    def _foreign(self) -> str:
        """What keeps this model from being one of the bases; empty when nothing does."""
        kinds = {"is_sd2": "an SD2 checkpoint", "is_sd3": "an SD3 checkpoint"}
        found = [text for flag, text in kinds.items() if getattr(self.sd_model, flag, False)]
        known = getattr(self.sd_model, "is_sdxl", False) or getattr(self.sd_model, "is_sd1", False)
        if found or not known:
            return found[0] if found else f"a checkpoint of the architecture {type(self.sd_model).__name__}"
        first: Any = self.unet.get_submodule("input_blocks.0.0")
        if first.out_channels == REFINER_WIDTH and getattr(self.sd_model, "is_sdxl", False):
            return "the SDXL refiner as the main checkpoint"
        if first.in_channels != UNET_CHANNELS:
            return f"an inpainting or editing checkpoint ({first.in_channels} input channels)"
        return ""

    def check_unet(self) -> None:
        """InputError where another engine stands in for the UNet: what we put on the UNet would have no effect."""
        engine = getattr(host_module("sd_unet"), "current_unet", None) if has_module("modules.sd_unet") else None
        compiled = hasattr(self.unet, "_orig_mod") or getattr(self.unet, "_compiled_call_impl", None) is not None
        if engine is not None or compiled:
            raise InputError(
                "a compiled UNet" if compiled else "a UNet replaced by another engine (TensorRT or the like)",
                "the checkpoint's own UNet",
                "choose None or Automatic as SD Unet in the settings, or start without compiling",
            )

    def check_schedule(self, p: Any) -> None:
        """InputError where the coming pass would be sampled at levels of noise that are none for this model."""

    @property
    def prediction(self) -> str:
        """What the loaded model predicts: epsilon, v or another name; empty where it does not say."""
        return str(getattr(self.sd_model, "parameterization", "") or "")

    @property
    def remark(self) -> str:
        """What a user should know of the loaded checkpoint; empty where there is nothing to say."""
        return ""

    def stop_time(self, stop_at: float) -> float:
        """The time, as the UNet is told it, at and below which the UNet is the plain one."""
        return stop_timestep(stop_at)

    def vae_space(self, latents: torch.Tensor, base: str) -> VaeLatent:
        """The sampler's latents [B,4,h,w] of a base as the VAE has them.

        Not of `self.base`: where a refiner took the model's place, reForge took its networks apart, which tell none.
        """
        space = BASES[base].latents
        return to_vae_space(latents.float(), self.scale_factor or space.scale_factor, space.shift_factor)

    def encode_mean(self, image: torch.Tensor) -> torch.Tensor:
        """Image [1,3,H,W] in [-1,1] -> the posterior's mean [1,4,h,w] in the sampler's scale."""
        return self.encode(image, lambda mean, _deviation: mean)

    def encode(self, image: torch.Tensor, adjust: Adjust) -> torch.Tensor:
        """Image [1,3,H,W] in [-1,1] -> `adjust(mean, deviation)` of its posterior, [1,4,h,w] in the sampler's scale."""
        with adjusted_posterior(self.vae, adjust), own_randomness(self.device), self.autocast(), torch.no_grad():
            model = self.sd_model
            image = image.to(self.device, self.vae_dtype)
            return model.get_first_stage_encoding(model.encode_first_stage(image)).float()

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """The sampler's latents [B,4,h,w] -> pixels [B,3,H,W] float32 in [0,1], as the VAE has them."""
        with own_randomness(self.device), self.autocast(), torch.no_grad():
            pixels = self.sd_model.decode_first_stage(latents.to(self.device, self.vae_dtype))
        return (pixels.float() / 2 + 0.5).clamp(0, 1)

    @property
    def vae_dtype(self) -> torch.dtype:
        """Numbers that the WebUI feeds its VAE."""
        return getattr(host_module("devices"), "dtype_vae", torch.float32)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The WebUI's own mixed precision."""
        return host_module("devices").autocast()

    def make_room(self, size: int) -> None:
        """Ask the WebUI to free `size` bytes on the device."""
        host_module("devices").torch_gc()

    def reserve(self, size: int) -> None:
        """Tell the WebUI before sampling that `size` bytes more are needed on the device."""

    def settle(self, modules: Iterable[nn.Module]) -> None:
        """Let the WebUI's own Lora, which alters a layer's weights at its first use, finish now."""
        apply = getattr(sys.modules.get("networks"), "network_apply_weights", None)  # of the built-in Lora extension
        if apply is None:
            return
        for module in modules:
            if hasattr(module, "network_layer_name") and isinstance(getattr(module, "weight", None), torch.Tensor):
                apply(module)

    def plain_attention(self) -> None:
        """Switch off what merges or tiles the tokens that attention layers see."""

    def rows_of_step(self, parameters: Any) -> list[Row]:
        """Rows of the coming UNet calls (parameters of on_cfg_denoiser); none where they are in (results, frames).

        Here they are in another order where prompts are joined by AND.
        """
        uncond = parameters.text_uncond
        images = len(next(iter(uncond.values())) if isinstance(uncond, dict) else uncond)
        if len(parameters.x) == 2 * images:
            return []
        conditions = parameters.denoiser.sampler.sampler_extra_args["cond"]
        return step_rows([len(parts) for parts in conditions.batch])

    def regional(self) -> list[str]:
        """Whose prompts of regions cross-attention sees in place of the pictures' own, where the host knows that."""
        return []


class ForgeFamily(WebuiHost):
    """Forge, reForge, Classic and Neo."""

    name = "the Forge family"

    @property
    def unet(self) -> nn.Module:
        return self.sd_model.forge_objects.unet.model.diffusion_model

    @property
    def vae(self) -> nn.Module:
        return self.sd_model.forge_objects.vae.first_stage_model

    @property
    def scale_factor(self) -> float | None:
        return None  # the base's; these WebUIs know checkpoints by their shapes

    @property
    def prediction(self) -> str:
        model = self.sd_model.forge_objects.unet.model
        said = getattr(getattr(model, "predictor", None), "prediction_type", None)
        return str(said or getattr(getattr(model, "model_type", None), "name", "")).lower()

    @property
    def _memory(self) -> Any:
        names = ("backend.memory_management", "ldm_patched.modules.model_management")
        name = next(name for name in names if has_module(name))
        return importlib.import_module(name)

    def make_room(self, size: int) -> None:
        self._memory.free_memory(size, self.device)

    def reserve(self, size: int) -> None:
        unet = self.sd_model.forge_objects.unet.clone()
        add = getattr(unet, "add_extra_preserved_memory_during_sampling", None)
        if add is not None:
            add(size)
            self.sd_model.forge_objects.unet = unet

    def settle(self, modules: Iterable[nn.Module]) -> None:
        """Nothing: these WebUIs merge a user's Lora when they load the model for sampling, before we come."""

    def rows_of_step(self, parameters: Any) -> list[Row]:
        """None: these WebUIs order rows by results themselves."""
        return []

    def plain_attention(self) -> None:
        """Token merging and Hypertile are patches before and after attn1 there."""
        both = self._on_both_sides("attn1")
        for name in around("attn1") if both else ():  # what comes before only leaves the number of tokens alone
            self._patches[name] = [patch for patch in self._patches[name] if origin(patch) not in both]
        if both:
            logger.info("switched off for the attention sharing of this picture: %s", ", ".join(both))

    def regional(self) -> list[str]:
        """Such extensions repeat rows for their regions before attn2, and mix the results behind it."""
        return sorted(self._on_both_sides("attn2"))

    @property
    def _patches(self) -> dict[str, list]:
        return self.sd_model.forge_objects.unet.model_options.get("transformer_options", {}).get("patches", {})

    def _on_both_sides(self, layer: str) -> set[str]:
        before, after = ({origin(patch) for patch in self._patches.get(name, [])} for name in around(layer))
        return before & after


class FluxHost(ForgeFamily):
    """A Flux transformer in Forge or Neo, with BFL's names."""

    name = "the Forge family with Flux"

    @functools.cached_property
    def _fault(self) -> str:
        return fault_of(self.unet)  # which looks at each of its layers, and a job asks for its base again and again

    @property
    def base(self) -> str:
        if self._fault:
            wanted = "Flux.1 dev, schnell or a tune of their shape"
            raise BaseMismatchError(self._fault, wanted, "load such a checkpoint, or switch LayerDiffuse off")
        return "flux"

    @property
    def remark(self) -> str:
        if is_guided(self.unet):
            return ""
        return "a checkpoint without guidance, as Flux.1 schnell: the layer files were made for Flux.1 dev"

    def check_schedule(self, p: Any) -> None:
        """InputError where Automatic takes places in the schedule for levels: down to 0, by which a step divides."""
        levels = getattr(p.sampler, "get_sigmas", None)  # samplers that count in timesteps have none
        found = None if levels is None else levels(p, p.steps)
        if found is not None and len(found) > 1 and float(found[:-1].min()) <= 0:
            chosen = getattr(p, "hr_scheduler" if getattr(p, "is_hr_pass", False) else "scheduler", None)
            raise InputError(
                f"the schedule type {chosen or 'Automatic'}, which gives Flux a step at a level of noise of 0",
                "one that ends in the picture alone",
                'choose the schedule type Simple (in an API call "scheduler": "Simple")',
            )

    def stop_time(self, stop_at: float) -> float:
        """By the host's own word on where a share of the schedule is."""
        predictor = self.sd_model.forge_objects.unet.model.predictor
        return stop_limit(stop_at, float(predictor.percent_to_sigma(stop_at)))


def around(layer: str) -> tuple[str, str]:
    """The names of patches before and behind attention layers ("attn1" or "attn2")."""
    return f"{layer}_patch", f"{layer}_output_patch"


@contextlib.contextmanager
def own_randomness(device: torch.device) -> Iterator[None]:
    """Inside, random numbers are the same every time; outside, the WebUI's go on as if nothing had drawn any.

    A WebUI samples from posteriors by torch's global generators, which its seed has set.
    """
    cards = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cards):
        torch.default_generator.manual_seed(0)
        if cards:
            torch.cuda.manual_seed(0)
        yield


def computing_device() -> torch.device:
    """Where the WebUI computes."""
    return torch.device(host_module("devices").device)


def host_of(sd_model: Any) -> WebuiHost:
    """The host that a loaded model belongs to."""
    if not hasattr(sd_model, "forge_objects"):
        return WebuiHost(sd_model)
    network = getattr(getattr(sd_model.forge_objects.unet, "model", None), "diffusion_model", None)
    return FluxHost(sd_model) if network is not None and is_flux(network) else ForgeFamily(sd_model)


def host_name(sd_model: Any) -> str:
    """What the host of a model is called; of none that is loaded, by the modules that there are."""
    if sd_model is None and has_module("modules_forge.forge_version"):
        return ForgeFamily.name
    return host_of(sd_model or object()).name


def loaded_model() -> Any:
    """The model that is loaded now, without loading one; None before the first, and while another is chosen."""
    data = host_module("sd_models").model_data
    loaded = getattr(data.sd_model, "sd_checkpoint_info", None)
    chosen = getattr(data, "forge_loading_parameters", {}).get("checkpoint_info")  # loaded when it is needed
    waiting = chosen is not None and loaded is not None and chosen.filename != loaded.filename
    return None if loaded is None or waiting else data.sd_model


def loaded_base() -> str | None:
    """The base that is loaded now, or of the checkpoint that the next job loads; None for one without methods."""
    try:
        return _base_at_hand()
    except BaseMismatchError:
        return None


def loaded_base_note() -> str:
    """Why LayerDiffuse cannot work with that checkpoint; empty when it can, or nothing is known of it."""
    try:
        _base_at_hand()
    except BaseMismatchError as error:
        return f"LayerDiffuse cannot work with the loaded checkpoint: it is {error.got}, and not {error.expected}."
    return ""


def _base_at_hand() -> str | None:
    model = loaded_model()
    return chosen_base() if model is None else host_of(model).base


def token_merging_off(p: Any, set_attribute: Callable[[str, Any], None]) -> None:
    """Let this job run without token merging: frames must see each other's tokens at the same places."""
    if option("token_merging_ratio", 0) or getattr(p, "token_merging_ratio", 0):
        logger.info("token merging is off for this picture: attention sharing needs all tokens")
    set_attribute("get_token_merging_ratio", lambda for_hr=False: 0)
