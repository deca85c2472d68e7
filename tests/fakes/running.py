"""Running jobs on a stand-in of a WebUI, and comparing what they leave behind, for tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from fakes.a1111 import A1111
from fakes.forge import Forge
from fakes.jobs import Img2Img, Txt2Img
from fakes.processing import process_images, run_closing
from fakes.webui import WebUI
from lib_layerdiffuse.core.methods import Method
from lib_layerdiffuse.form.arguments import ARGUMENTS

IMAGE_ARGUMENTS = {"foreground": "fg_image", "background": "bg_image", "blended": "blend_image"}
OTHER = {"sd15": "sdxl", "sdxl": "sd15"}
FLUX = ("flux", "schnell")  # on Forge alone


def start(monkeypatch: Any, folder: Path, layers: Path, flavour: str = "a1111", **engine: Any) -> WebUI:
    """A WebUI with checkpoints of each base, its page built; `layers` is `layer_model` in its models folder."""
    make = A1111 if flavour == "a1111" else Forge
    folder.mkdir()
    webui = WebUI(folder, layers.parent, lambda webui: make(webui, **engine))
    for base in OTHER:
        for number in ("one", "two"):
            webui.engine.add_checkpoint(f"{base}-{number}", base)
    webui.engine.add_checkpoint("demo-one", "demo")
    if flavour == "forge":
        for base in FLUX:
            webui.engine.add_checkpoint(f"{base}-one", base)
    return webui.install(monkeypatch).reload_ui()


def load(webui: WebUI, name: str) -> WebUI:
    """Choose a checkpoint, and load it."""
    webui.opts.set("sd_model_checkpoint", name)
    webui.engine.reload_model_weights()
    return webui


@dataclass(frozen=True)
class Outcome:
    """A finished job."""

    p: Any
    processed: Any
    samples: torch.Tensor | None

    @property
    def pictures(self) -> list[Image.Image]:
        """All that the gallery gets, but for the grid."""
        return self.processed.images[self.processed.index_of_first_image :]

    @property
    def arrays(self) -> list[np.ndarray]:
        """The pictures' values."""
        return [np.asarray(picture) for picture in self.pictures]

    @property
    def modes(self) -> list[str]:
        """The pictures' modes."""
        return [picture.mode for picture in self.pictures]

    @property
    def parameters(self) -> dict[str, Any]:
        """Generation parameters of the job."""
        return self.p.extra_generation_params

    @property
    def error(self) -> str | None:
        """What the API's info says of a failure."""
        return self.parameters.get("layerdiffusion_error")

    @property
    def note(self) -> str:
        """What the API's info tells the user."""
        return self.parameters.get("layerdiffusion_note", "")


def positional(**layer: Any) -> list[Any]:
    """Arguments as a page sends them: all, in their order, the box ticked."""
    values = {argument.name: argument.default for argument in ARGUMENTS} | {"enabled": True, "passes": 1} | layer
    return list(values.values())


def as_mapping(**layer: Any) -> list[Any]:
    """Arguments as an API's caller sends them as one mapping, and the WebUI fills them up."""
    return [{"passes": 1, **layer}, *positional(enabled=False)[1:]]


def plain(**layer: Any) -> list[Any]:
    """The same page with its box not ticked."""
    return positional(enabled=False, **layer)


def run(webui: WebUI, layer: dict[str, Any] | list[Any] | None = None, **fields: Any) -> Outcome:
    """A job as the page runs it; `layer` are arguments by name, or as they are sent; none: the box is not ticked."""
    p = job(webui, layer, **fields)
    webui.samples = None
    processed = run_closing(webui, p, process_images)
    return Outcome(p, processed, webui.samples)


PLAIN: dict[Any, Outcome] = {}


def plainly(webui: WebUI, **fields: Any) -> Outcome:
    """What a plain job of one step gives on such a WebUI before anything was done to it; made once."""
    storage = getattr(webui.engine, "storage", None)
    key = (webui.engine.name, storage, webui.sd_model.sd_checkpoint_info, *sorted(fields.items()))
    if key not in PLAIN:
        PLAIN[key] = run(webui, steps=1, **fields)
    return PLAIN[key]


def job(webui: WebUI, layer: dict[str, Any] | list[Any] | None = None, **fields: Any) -> Any:
    """The `p` of a job."""
    sent = layer if isinstance(layer, list) else plain() if layer is None else positional(**layer)
    kind = Img2Img if "init_images" in fields else Txt2Img
    return kind(webui, script_args=tuple(sent), **fields)


def picture(size: int = 64, seed: int = 3, alpha: bool = True) -> Image.Image:
    """A made-up picture: smooth colours, and a round shape in its alpha."""
    generator = np.random.default_rng(seed)
    small = Image.fromarray(generator.integers(0, 255, (4, 4, 3), dtype=np.uint8))
    image = small.resize((size, size), Image.Resampling.BICUBIC)
    if alpha:
        rows, columns = np.mgrid[:size, :size] / size - 0.5
        shape = (np.hypot(rows, columns) < 0.35 + 0.02 * (seed % 5)) * 255
        image.putalpha(Image.fromarray(shape.astype(np.uint8)))
    return image


def layer_of(method: Method, **more: Any) -> dict[str, Any]:
    """What a method needs: its name and its pictures."""
    images = {IMAGE_ARGUMENTS[frame]: picture(seed=place) for place, frame in enumerate(method.images)}
    return {"method": method.id, **images, **more}


def networks_of(webui: WebUI) -> dict[str, nn.Module]:
    """UNet and VAE of the loaded model."""
    model = webui.sd_model
    if webui.engine.name == "Forge":
        parts = model.forge_objects_original
        return {"unet": parts.unet.model.diffusion_model, "vae": parts.vae.first_stage_model}
    return {"unet": model.model.diffusion_model, "vae": model.first_stage_model}


@dataclass(frozen=True)
class Snapshot:
    """All that a job could leave behind on the loaded networks: values, parameter objects, hooks, forwards."""

    values: dict[str, tuple[int, torch.Tensor]]
    traces: dict[str, tuple]

    @classmethod
    def of(cls, webui: WebUI) -> Snapshot:
        """The state now."""
        values = {name: (id(tensor), tensor.detach().clone()) for name, tensor in tensors_of(webui).items()}
        return cls(values, all_traces(webui))

    def check(self, webui: WebUI) -> None:
        """AssertionError that names what is different now."""
        now = tensors_of(webui)
        assert list(now) == list(self.values)
        replaced = [name for name, (identity, _) in self.values.items() if id(now[name]) != identity]
        assert not replaced, f"other parameter objects: {replaced[:5]}"
        changed = [name for name, (_, value) in self.values.items() if not same_bits(now[name], value)]
        assert not changed, f"other values: {changed[:5]}"
        traces = all_traces(webui)
        left = [name for name in self.traces if traces[name] != self.traces[name]]
        assert not left, f"hooks or forwards: {left[:5]}"


def tensors_of(webui: WebUI) -> dict[str, torch.Tensor]:
    """All parameters and buffers of UNet and VAE."""
    return {
        f"{part}.{name}": tensor
        for part, network in networks_of(webui).items()
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]
    }


def all_traces(webui: WebUI) -> dict[str, tuple]:
    """What was put on their modules."""
    return {
        f"{part}.{name}": traces_of(module)
        for part, network in networks_of(webui).items()
        for name, module in network.named_modules()
    }


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are of one type, with the same bits."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32}[one.element_size()]
    return torch.equal(one.detach().view(whole), other.view(whole))


def traces_of(module: nn.Module) -> tuple:
    """What can be put on a module: hooks of every kind, a forward of its own."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks")
    hooks = tuple(tuple(id(hook) for hook in getattr(module, kind).values()) for kind in kinds[:3])
    return (*hooks, tuple(module._backward_hooks), id(module.__dict__.get("forward")), module.training)


def same_pictures(one: Outcome, other: Outcome) -> bool:
    """Whether two jobs gave the same pictures, bit by bit."""
    pairs = list(zip(one.arrays, other.arrays, strict=True))
    return bool(pairs) and all(np.array_equal(left, right) for left, right in pairs)


@contextlib.contextmanager
def raising(webui: WebUI, error: BaseException, at_call: int = 1) -> Iterator[None]:
    """Inside, the UNet's middle block raises at this call."""
    calls = 0

    def hook(_module: nn.Module, _inputs: tuple) -> None:
        nonlocal calls
        calls += 1
        if calls == at_call:
            raise error

    handle = networks_of(webui)["unet"].middle_block.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def counting(webui: WebUI) -> Iterator[list[int]]:
    """Inside, the rows of every UNet call are noted."""
    rows: list[int] = []
    unet = networks_of(webui)["unet"]
    handle = unet.time_embed.register_forward_pre_hook(lambda _module, inputs: rows.append(len(inputs[0])))
    try:
        yield rows
    finally:
        handle.remove()
