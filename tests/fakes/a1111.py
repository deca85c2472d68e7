"""AUTOMATIC1111: its model, its guidance with all rows in one call or several, its loading of checkpoints in place."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import nn

from fakes import prompts
from fakes.compositing import around_the_mask
from fakes.engines import Denoiser, Engine
from fakes.lora import BuiltInLora
from fakes.networks import CONTEXT, POOL, SCALE_FACTOR, VECTOR, Autoencoder, build_unet, fill, state_of
from fakes.sampling import alphas_cumprod, timestep_of


@dataclass(frozen=True)
class CheckpointInfo:
    """A checkpoint on the list."""

    name: str
    base: str
    weights: str = ""  # the name that its values follow from, where it is not its own

    @property
    def state(self) -> Mapping[str, torch.Tensor]:
        """Its tensors."""
        return state_of(self.base, self.weights or self.name)

    @property
    def filename(self) -> str:
        return f"{self.name}.safetensors"

    @property
    def name_for_extra(self) -> str:
        return self.name


class DiffusionWrapper(nn.Module):
    """LDM's wrapper: SD1.5 calls by place, SDXL by name."""

    conditioning_key = "crossattn"

    def __init__(self, base: str, storage: torch.dtype):
        super().__init__()
        unet = POOL.take((base, "plain", storage), lambda: stored(build_unet(base), storage))
        self.diffusion_model, self.base = unet, base

    def forward(self, x: torch.Tensor, t: torch.Tensor, cond: Any) -> torch.Tensor:
        """Predicted noise of a call."""
        if self.base == "sdxl":
            return self.diffusion_model(x, timesteps=t, context=cond["crossattn"], y=cond["vector"])
        return self.diffusion_model(x, t, context=cond)


def stored(unet: nn.Module, storage: torch.dtype) -> nn.Module:
    """A UNet with the weights of its linear layers and convolutions in this precision."""
    for module in unet.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.to(storage)
    return unet.requires_grad_(False)


class Model(nn.Module):
    """`shared.sd_model`."""

    is_sd2 = is_sd3 = is_sdxl_inpaint = lowvram = False
    cond_stage_key = "txt"

    def __init__(self, base: str, storage: torch.dtype):
        super().__init__()
        self.base, self.is_sdxl, self.is_sd1 = base, base == "sdxl", base in ("sd15", "demo")
        self.model, self.first_stage_model = DiffusionWrapper(base, storage), POOL.take("vae", Autoencoder)
        self.scale_factor, self.used_config = SCALE_FACTOR[base], base
        self.register_buffer("alphas_cumprod", alphas_cumprod())
        self.sd_checkpoint_info: CheckpointInfo | None = None

    def embed(self, text: str) -> Any:
        """Conditioning of a text."""
        return prompts.embed(text, CONTEXT[self.base], VECTOR if self.is_sdxl else 0)

    def apply_model(self, x: torch.Tensor, t: torch.Tensor, cond: Any) -> torch.Tensor:
        """Predicted noise."""
        return self.model(x, t, cond)

    def encode_first_stage(self, image: torch.Tensor) -> Any:
        """SD1.5: a posterior; SDXL: a sample of it, scaled."""
        posterior = self.first_stage_model.encode(image)
        return posterior.sample() * self.scale_factor if self.is_sdxl else posterior

    def get_first_stage_encoding(self, encoded: Any) -> torch.Tensor:
        """The sampler's latents."""
        return encoded if self.is_sdxl else encoded.sample() * self.scale_factor

    def decode_first_stage(self, latents: torch.Tensor) -> torch.Tensor:
        """The sampler's latents -> image in about [-1,1]."""
        return self.first_stage_model.decode(latents / self.scale_factor)


class CFGDenoiser(Denoiser):
    """Guidance; calls the UNet once or several times a step, in the order of its rows."""

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, cond: Any, uncond: Any, cond_scale: float):
        cond, uncond = self.begun(cond, uncond)
        if self.timesteps and self.mask is not None:
            x = around_the_mask(self, self.p, x)
        denoised = self.guided(x, sigma, (cond, uncond), cond_scale)
        if not self.timesteps and self.mask is not None:
            denoised = around_the_mask(self, self.p, denoised)
        self.sampler.last_latent = self.webui.state.current_latent = denoised
        self.webui.callbacks.fire("cfg_after_cfg", SimpleNamespace(x=denoised))
        self.step += 1
        return denoised

    def guided(self, x: torch.Tensor, sigma: torch.Tensor, conds: tuple[Any, Any], scale: float) -> torch.Tensor:
        """One step: rows are each picture with all its prompts, then all unconditional."""
        places, text = prompts.reconstruct_multicond(conds[0], self.step)
        uncond = prompts.reconstruct(conds[1], self.step)
        images = [image for image, parts in enumerate(places) for _ in parts]
        rows = [*images, *range(len(x))]
        told = SimpleNamespace(
            x=x[rows],
            image_cond=x.new_zeros(len(rows), 5, 1, 1),
            sigma=sigma[rows],
            sampling_step=self.webui.state.sampling_step,
            total_sampling_steps=self.webui.state.sampling_steps,
            text_cond=text,
            text_uncond=uncond,
            denoiser=self,
        )
        self.webui.callbacks.fire("cfg_denoiser", told)
        skip = self._skip_uncond(sigma)
        x_in, sigma_in = (told.x[: -len(x)], told.sigma[: -len(x)]) if skip else (told.x, told.sigma)
        out = self._calls(x_in, sigma_in, (told.text_cond, told.text_uncond), (len(x), skip))
        if skip:
            out = torch.cat([out, out[[parts[0][0] for parts in places]]])
        self.webui.callbacks.fire("cfg_denoised", SimpleNamespace(x=out))
        return self._combined(out, places, len(x), 1.0 if skip else scale)

    def _skip_uncond(self, sigma: torch.Tensor) -> bool:
        opts, least = self.webui.opts, self.p.s_min_uncond
        if opts.skip_early_cond and self.step / self.total_steps <= opts.skip_early_cond:
            return True
        return bool((self.step % 2 or opts.s_min_uncond_all) and least > 0 and sigma[0] < least)

    def _calls(self, x: torch.Tensor, sigma: torch.Tensor, conds: tuple[Any, Any], sizes: tuple[int, bool]):
        """Predictions of all rows, call by call.

        Conditionings of one length share their calls, of two lengths none. A call takes as many rows as there are
        pictures; where the settings allow more, all that share, or two of each picture.
        """
        (text, uncond), (pictures, skip) = conds, sizes
        groups = [text] if skip else [text, uncond]
        lengths = {group.shape[1] for group in groups}
        if len(lengths) == 1:
            groups = [prompts.join(groups)]
        most = pictures
        if self.webui.opts.batch_cond_uncond:
            most = len(x) if len(lengths) == 1 else 2 * pictures
        results, place = [], 0
        for cond in (part for group in groups for part in prompts.parts(group, most)):
            rows = slice(place, place + cond.shape[0])
            results.append(self.predict(x[rows], sigma[rows], cond))
            place = rows.stop
        return torch.cat(results)

    def predict(self, x: torch.Tensor, sigma: torch.Tensor, cond: Any) -> torch.Tensor:
        """One call: what k-diffusion's or the timesteps' wrapper makes of the UNet."""
        model = self.webui.sd_model
        if self.timesteps:
            return model.apply_model(x, sigma, cond)
        level = sigma[:, None, None, None]
        return x - level * model.apply_model(x / (level**2 + 1) ** 0.5, timestep_of(sigma), cond)

    def _combined(self, out: torch.Tensor, places: list[Any], count: int, scale: float) -> torch.Tensor:
        uncond = out[-count:]
        denoised = uncond.clone()
        for image, parts in enumerate(places):
            for row, weight in parts:
                denoised[image] += (out[row] - uncond[image]) * (weight * scale)
        return denoised


class A1111(Engine):
    """The engine of AUTOMATIC1111; `keeps_models` is its setting for models in memory, `storage` that of weights."""

    name, denoiser = "AUTOMATIC1111", CFGDenoiser

    def __init__(self, webui: Any, storage: torch.dtype = torch.float32):
        self.webui, self.lora, self.storage = webui, BuiltInLora(), storage
        self.checkpoints: dict[str, CheckpointInfo] = {}
        self.model_data = SimpleNamespace(sd_model=SimpleNamespace())
        self.loaded_models: list[Model] = []
        self.keeps_models = 1
        self.at_step: dict[int, Callable[[Any], None]] = {}
        self.merging = 0.0
        self.merged_at: list[float] = []  # the ratio at each pass

    @property
    def sd_model(self) -> Any:
        return self.model_data.sd_model

    def modules(self) -> dict[str, ModuleType]:
        """Modules that only this WebUI has."""
        return self.lora.modules()

    def install(self, monkeypatch: Any) -> None:
        """The built-in Lora patches torch's layers when its extension is loaded."""
        self.lora.patch(monkeypatch)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """On a CPU, layers of less than whole precision compute in bfloat16."""
        less = self.storage != torch.float32
        return torch.autocast("cpu", torch.bfloat16) if less else contextlib.nullcontext()

    # --- checkpoints

    def add_checkpoint(self, name: str, base: str, weights: str = "") -> CheckpointInfo:
        """A checkpoint with weights of its own, or with those of another."""
        self.checkpoints[name] = CheckpointInfo(name, base, weights)
        return self.checkpoints[name]

    def reload_model_weights(self, info: CheckpointInfo | None = None) -> None:
        """Load the chosen checkpoint, or another for a while: into the same modules where the architecture allows."""
        info = info or self.checkpoints[self.webui.opts.sd_model_checkpoint]
        current = self.sd_model if isinstance(self.sd_model, Model) else None
        if current is not None and current.sd_checkpoint_info == info:
            return
        known = next((model for model in self.loaded_models if model.sd_checkpoint_info == info), None)
        if known is not None:
            self.model_data.sd_model = known
            return
        if current is not None and len(self.loaded_models) < self.keeps_models:
            current = None
        elif current is not None and current.used_config != info.base:
            self.loaded_models.remove(current)
            current.to("meta")
            current = None
        model = self._loaded(current, info) if current else self._made(info)
        if model not in self.loaded_models:
            self.loaded_models.append(model)
        self.model_data.sd_model = model
        self.webui.callbacks.fire("model_loaded", model)

    def _made(self, info: CheckpointInfo) -> Model:
        model = Model(info.base, self.storage)
        fill(model.model.diffusion_model, info.state, "model.diffusion_model.")
        fill(model.first_stage_model, info.state, "first_stage_model.")
        return self._ready(model, info)

    def _loaded(self, model: Model, info: CheckpointInfo) -> Model:
        """Read into the modules at hand."""
        model.to("cpu")
        model.load_state_dict(info.state, strict=False)
        return self._ready(model, info)

    def _ready(self, model: Model, info: CheckpointInfo) -> Model:
        model.sd_checkpoint_info, model.sd_model_checkpoint = info, info.filename
        self.lora.assign_names(model.model.diffusion_model)
        return model

    # --- jobs

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Around the batches of a job."""
        return torch.no_grad()

    def loaded(self, x: torch.Tensor) -> contextlib.AbstractContextManager[Any]:
        """Around a pass; nothing is loaded for it here."""
        self.merged_at.append(self.merging)
        return self.autocast()

    def activate(self, networks: tuple[tuple[str, float], ...]) -> None:
        """Choose the networks of the coming pass; weights change when layers are used."""
        self.lora.choose(networks)

    def apply_token_merging(self, ratio: float) -> None:
        """Note what the layers would merge."""
        self.merging = ratio

    def before_batch(self, p: Any) -> None:
        """Nothing here."""

    def before_sampling(self, p: Any, call: Callable[[], None], again: bool) -> None:
        """The hook before each pass."""
        if again:
            self.apply_token_merging(p.get_token_merging_ratio(for_hr=True))
            p.scripts.call("before_hr", p)
        call()

    def after_sampling(self, p: Any, samples: Any) -> None:
        """Nothing here."""

    def vae_dtype(self) -> torch.dtype:
        return torch.float32
