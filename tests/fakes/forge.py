"""Forge: networks in patchers with their own layers, a user's Lora merged before sampling, guidance by whole chunks."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import nn

from fakes import forge_flux, prompts
from fakes.a1111 import CheckpointInfo
from fakes.compositing import around_the_mask
from fakes.engines import Denoiser, Engine
from fakes.forge_layers import forge_unet
from fakes.forge_patcher import NetworkModel, Patcher, TokenMerging, network_patches
from fakes.networks import CONTEXT, POOL, SCALE_FACTOR, VECTOR, Autoencoder, build_unet, fill
from fakes.sampling import SIGMAS, alphas_cumprod, timestep_of
from fakes.webui import make_module

COND, UNCOND = 0, 1


class Predictor:
    """Noise levels and scalings of an eps model."""

    sigmas = SIGMAS

    def percent_to_sigma(self, percent: float) -> float:
        """Noise level after a share of the schedule."""
        return float(SIGMAS[round(999 * (1 - percent))])


class KModel(NetworkModel):
    """The UNet with its predictor."""

    predictor_kind = Predictor

    def apply_model(self, x: torch.Tensor, t: torch.Tensor, c_crossattn: Any, y: Any, transformer_options: Any):
        """A picture without noise."""
        level = t[:, None, None, None]
        more = {} if y is None else {"y": y}
        noise = self.diffusion_model(
            x / (level**2 + 1) ** 0.5,
            timestep_of(t).float(),
            context=c_crossattn,
            control=None,
            transformer_options=transformer_options,
            **more,
        )
        return x - level * noise.float()


class Vae:
    """`forge_objects.vae`: pictures [B,H,W,3] in [0,1]."""

    def __init__(self, network: nn.Module, channels: int = 4):
        self.first_stage_model, self.patcher, self.latent_channels = network, Patcher(network), channels

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """A sample of each picture's posterior."""
        return self.first_stage_model.encode(pixels.movedim(-1, 1) * 2 - 1).sample()

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pictures of VAE-space latents."""
        return (self.first_stage_model.decode(latents) / 2 + 0.5).clamp(0, 1).movedim(1, -1)


class ForgeObjects(SimpleNamespace):
    """What a model consists of."""

    def shallow_copy(self) -> ForgeObjects:
        """The same parts, which can be replaced one by one."""
        return ForgeObjects(**vars(self))


class Model:
    """`shared.sd_model`."""

    is_sd2 = is_sd3 = False
    first_stage_model = cond_stage_model = None

    def __init__(self, info: CheckpointInfo, storage: torch.dtype):
        self.base, self.is_sdxl, self.is_sd1 = info.base, info.base == "sdxl", info.base in ("sd15", "demo")
        self.scale = SCALE_FACTOR[info.base]
        state = info.state
        unet = POOL.take((info.base, storage), lambda: forge_unet(build_unet(info.base), storage))
        vae = POOL.take("vae", Autoencoder)
        fill(unet, state, "model.diffusion_model.")
        fill(vae, state, "first_stage_model.")
        self._hold(info, KModel(unet, storage), Vae(vae))
        self.alphas_cumprod = alphas_cumprod()

    def _hold(self, info: CheckpointInfo, model: nn.Module, vae: Vae) -> None:
        parts = ForgeObjects(unet=Patcher(model), clip=None, vae=vae, clipvision=None)
        for stage in ("", "_original", "_after_applying_lora"):
            setattr(self, f"forge_objects{stage}", parts.shallow_copy())
        self.current_lora_hash = str([])
        self.sd_checkpoint_info, self.sd_model_checkpoint = info, info.filename

    def embed(self, text: str) -> Any:
        """Conditioning of a text."""
        return prompts.embed(text, CONTEXT[self.base], VECTOR if self.is_sdxl else 0)

    def encode_first_stage(self, image: torch.Tensor) -> torch.Tensor:
        """Image in [-1,1] -> the sampler's latents."""
        return self.forge_objects.vae.encode(image.movedim(1, -1) * 0.5 + 0.5) * self.scale

    def get_first_stage_encoding(self, encoded: torch.Tensor) -> torch.Tensor:
        """The same."""
        return encoded

    def decode_first_stage(self, latents: torch.Tensor) -> torch.Tensor:
        """The sampler's latents -> image in [-1,1]."""
        return self.forge_objects.vae.decode(latents / self.scale).movedim(-1, 1) * 2 - 1


def tear_down(model: Model) -> None:
    """What reForge does to a model that is loaded no more: whoever still has it finds its networks without layers."""
    empty = nn.Module()
    empty.register_module("input_blocks", None)
    model.forge_objects.unet.model.diffusion_model = empty


class Flux(Model):
    """`shared.sd_model` with a Flux checkpoint; it has no table of noise levels."""

    is_sdxl = is_sd1 = False
    schedule, latent_channels = forge_flux.Schedule, forge_flux.CHANNELS

    def __init__(self, info: CheckpointInfo, storage: torch.dtype):
        self.base, self.use_distilled_cfg_scale = info.base, info.base == "flux"
        transformer, vae = forge_flux.networks(info, storage)
        model = forge_flux.FluxKModel(transformer, storage)
        self._hold(info, model, Vae(vae, forge_flux.CHANNELS))

    def embed(self, text: str) -> Any:
        return forge_flux.embed(text, 3.5 if self.use_distilled_cfg_scale else None)

    def encode_first_stage(self, image: torch.Tensor) -> torch.Tensor:
        latent = self.forge_objects.vae.encode(image.movedim(1, -1) * 0.5 + 0.5)
        return (latent - forge_flux.SHIFT) * forge_flux.SCALE

    def decode_first_stage(self, latents: torch.Tensor) -> torch.Tensor:
        latents = latents / forge_flux.SCALE + forge_flux.SHIFT
        return self.forge_objects.vae.decode(latents).movedim(-1, 1) * 2 - 1


MODELS = dict.fromkeys(forge_flux.SHAPES, Flux)


class CFGDenoiser(Denoiser):
    """Guidance: each chunk of a UNet call is the whole batch with one of its prompts, or unconditional."""

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, cond: Any, uncond: Any, cond_scale: float):
        cond, uncond = self.begun(cond, uncond)
        source = x
        if self.timesteps:  # as Forge estimates eps for these samplers
            sigma = SIGMAS[sigma.long()]
            x = x * (sigma[:, None, None, None] ** 2 + 1) ** 0.5
        denoised = self.guided(x, sigma, (cond, uncond), cond_scale)
        if self.mask is not None:
            denoised = around_the_mask(self, self.p, denoised)
        self.sampler.last_latent = self.webui.state.current_latent = denoised
        self.step += 1
        return (x - denoised) / sigma[:, None, None, None] if source is not x else denoised

    def guided(self, x: torch.Tensor, sigma: torch.Tensor, conds: tuple[Any, Any], scale: float) -> torch.Tensor:
        """One step."""
        places, text = prompts.reconstruct_multicond(conds[0], self.step)
        uncond = prompts.reconstruct(conds[1], self.step)
        told = SimpleNamespace(x=x, sigma=sigma, text_cond=text, text_uncond=uncond, denoiser=self)
        self.webui.callbacks.fire("cfg_denoiser", told)
        if (self.step % 2 or self.webui.opts.s_min_uncond_all) and 0 < sigma[0] < self.p.s_min_uncond:
            scale = 1.0
        chunks = [(rows_of(text, part), part[0][1], COND) for part in zip(*places, strict=False)]
        if scale != 1.0:
            chunks.append((uncond, 1.0, UNCOND))
        total = {COND: torch.zeros_like(x), UNCOND: torch.zeros_like(x)}
        weights = {COND: 0.0, UNCOND: 0.0}
        for kind, weight, output in self._outputs(told.x, sigma, chunks):
            total[kind] += output * weight
            weights[kind] += weight
        cond_pred = total[COND] / weights[COND]
        uncond_pred = total[UNCOND] / (weights[UNCOND] or 1.0)
        return uncond_pred + (cond_pred - uncond_pred) * scale * weights[COND]

    def _outputs(self, x: torch.Tensor, sigma: torch.Tensor, chunks: list[Any]) -> Iterator[tuple[int, float, Any]]:
        """(kind, weight, output) of all chunks, the last first; as many in one call as memory allows."""
        waiting = list(chunks)
        while waiting:
            taken = [waiting.pop() for _ in range(min(self.engine.chunks_together, len(waiting)))]
            context, others = concatenated([cond for cond, _, _ in taken])
            kinds = [kind for _, _, kind in taken]
            patcher = self.webui.sd_model.forge_objects.unet
            options = patcher.model_options["transformer_options"] | {"cond_or_uncond": kinds, "sigmas": sigma}
            many = len(taken)
            rows, levels = x.repeat(many, 1, 1, 1), sigma.repeat(many)
            conds = {"c_crossattn": context, "transformer_options": options, **others}
            apply, around = patcher.model.apply_model, patcher.model_options.get("model_function_wrapper")
            if around is None:
                output = apply(rows, levels, **conds)
            else:
                told = {"input": rows, "timestep": levels, "c": conds, "cond_or_uncond": kinds}
                output = around(apply, told)
            for (_, weight, kind), part in zip(taken, output.chunk(many), strict=True):
                yield kind, weight, part


def rows_of(text: Any, part: tuple[tuple[int, float], ...]) -> Any:
    """The rows of one prompt of each picture."""
    places = [row for row, _ in part]
    return {key: rows[places] for key, rows in text.items()} if isinstance(text, dict) else text[places]


def concatenated(conds: list[Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor | None]]:
    """Contexts repeated to one length and joined, and what else the network is told."""
    contexts = [cond["crossattn"] if isinstance(cond, dict) else cond for cond in conds]
    length = math.lcm(*(context.shape[1] for context in contexts))
    joined = torch.cat([context.repeat(1, length // context.shape[1], 1) for context in contexts])
    names = {"vector": "y", "guidance": "guidance"}
    told = {key: name for key, name in names.items() if isinstance(conds[0], dict) and key in conds[0]}
    return joined, {name: torch.cat([cond[key] for cond in conds]) for key, name in told.items()} or {"y": None}


class Forge(Engine):
    """The engine of Forge; `storage` is the precision of stored weights, `tears_down` makes it reForge in that."""

    name, denoiser = "Forge", CFGDenoiser

    def __init__(self, webui: Any, storage: torch.dtype = torch.float32):
        self.webui, self.storage = webui, storage
        self.checkpoints: dict[str, CheckpointInfo] = {}
        self.model_data = SimpleNamespace(sd_model=SimpleNamespace())
        self.at_step: dict[int, Callable[[Any], None]] = {}
        self.chunks_together, self.tears_down = 4, False
        self.freed: list[int] = []

    @property
    def sd_model(self) -> Any:
        return self.model_data.sd_model

    def modules(self) -> dict[str, ModuleType]:
        """Modules that only this WebUI has."""
        memory = make_module("backend.memory_management", free_memory=lambda size, device: self.freed.append(size))
        return {
            "backend": make_module("backend"),
            "backend.memory_management": memory,
            "networks": make_module("networks", loaded_networks=[]),
        }

    def install(self, monkeypatch: Any) -> None:
        """Nothing is patched here."""

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    # --- checkpoints

    def add_checkpoint(self, name: str, base: str, weights: str = "") -> CheckpointInfo:
        """A checkpoint with weights of its own, or with those of another."""
        kind = forge_flux.FluxCheckpoint if base in MODELS else CheckpointInfo
        self.checkpoints[name] = kind(name, base, weights)
        return self.checkpoints[name]

    def reload_model_weights(self, info: CheckpointInfo | None = None) -> None:
        """Load the chosen checkpoint, or another; always into a new model."""
        info = info or self.checkpoints[self.webui.opts.sd_model_checkpoint]
        if getattr(self.sd_model, "sd_checkpoint_info", None) != info:
            if self.tears_down:
                tear_down(self.sd_model)
            self.model_data.sd_model = MODELS.get(info.base, Model)(info, self.storage)
            self.webui.callbacks.fire("model_loaded", self.sd_model)

    # --- jobs

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Around the batches of a job."""
        return torch.inference_mode()

    @contextlib.contextmanager
    def loaded(self, x: torch.Tensor) -> Iterator[None]:
        """Around a pass: the model is loaded, with a user's networks merged."""
        self.prepare()
        yield

    def prepare(self) -> None:
        """Merge a user's networks, or take them out again."""
        patcher = self.sd_model.forge_objects.unet
        patcher.model.lora_loader.refresh(patcher.lora_patches)

    def activate(self, networks: tuple[tuple[str, float], ...]) -> None:
        """Patches of the chosen networks on a clone of the original patcher."""
        model = self.sd_model
        if model.current_lora_hash == str(networks or []):
            return
        model.current_lora_hash = str(networks or [])
        unet = model.forge_objects_original.unet
        for name, strength in networks:
            unet = unet.clone()
            unet.add_patches(filename=name, patches=network_patches(name, unet.model), strength_patch=strength)
        model.forge_objects.unet = unet
        model.forge_objects_after_applying_lora = model.forge_objects.shallow_copy()

    def apply_token_merging(self, ratio: float) -> None:
        """Patches before and after the self-attention that merge tokens, and part them again."""
        if ratio > 0:
            unet = self.sd_model.forge_objects.unet.clone()
            merging = TokenMerging()
            unet.set_model_patch(lambda *parts: merging.before(*parts), "attn1_patch")
            unet.set_model_patch(lambda x, options: merging.after(x, options), "attn1_output_patch")
            self.sd_model.forge_objects.unet = unet

    def before_batch(self, p: Any) -> None:
        """Fresh patchers."""
        self.sd_model.forge_objects = self.sd_model.forge_objects_original.shallow_copy()

    def before_sampling(self, p: Any, call: Callable[[], None], again: bool) -> None:
        """The hook before each pass; twice before the second one, first on patchers that are thrown away."""
        if again:
            p.scripts.call("before_hr", p)
            call()
        self.sd_model.forge_objects = self.sd_model.forge_objects_after_applying_lora.shallow_copy()
        self.apply_token_merging(p.get_token_merging_ratio(for_hr=again))
        call()

    def after_sampling(self, p: Any, samples: Any) -> None:
        """Latents, or what a second pass decoded."""
        p.latents_after_sampling.extend(samples)
