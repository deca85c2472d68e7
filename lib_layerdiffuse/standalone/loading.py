"""From ModelSettings to a loaded host: the base of a checkpoint, where its parts come from, the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..core.bases import BASES, TRANSFORMER
from ..core.errors import InputError, LayerDiffuseError, WeightsError
from ..files.checkpoints import checkpoint_shapes, recognise_base
from ..files.demo_folder import demo_folder
from ..files.downloads import LayerFiles, first_line
from . import flux_loading
from .settings import ModelSettings

if TYPE_CHECKING:
    from .diffusers_host import DiffusersHost

Shape = tuple[int, ...]
UNET_REST = "model_index.json, configurations and tokenizer; its weights are not needed"
REST = {  # what a folder must have beside a checkpoint
    "sd15": UNET_REST,
    "sdxl": UNET_REST,
    "flux": "model_index.json, text encoders and VAE with their weights, tokenizers, scheduler",
}
PIPELINES = {"sd15": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline"}
OWN_PRECISION = {"flux": "bfloat16"}
PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Placement:
    """Where a model runs and in which precision."""

    device: torch.device
    dtype: torch.dtype


def base_of(model: ModelSettings) -> str:
    """The base that a model will be, from the header of its checkpoint."""
    if model.checkpoint is None:
        return "demo"
    path = Path(model.checkpoint)
    if path.is_dir():
        flux_loading.check_folder(path)
        return "flux"
    return recognise_base(checkpoint_shapes(path), path)


def load_host(model: ModelSettings) -> DiffusersHost:
    """The DiffusersHost of a checkpoint, or of the demo model when none is named."""
    from .diffusers_host import DiffusersHost

    base = base_of(model)
    placement = choose_placement(model, base)
    if model.checkpoint is None:
        return _demo_host(demo_folder(model.demo), model, placement)
    path, files = Path(model.checkpoint), LayerFiles(model.folders, model.offline)
    if base == "demo":
        return _demo_host(path.parent, model, placement)
    pipeline = load_checkpoint(path, base, model, placement.dtype).to(placement.device)
    return DiffusersHost(pipeline, base, files, name=path.stem)


def _demo_host(folder: Path, model: ModelSettings, placement: Placement) -> DiffusersHost:
    from .demo import load_demo
    from .diffusers_host import DiffusersHost
    from .vocabulary import read_vocabulary

    captions = [caption for group in read_vocabulary(folder).values() for caption in group]
    files = LayerFiles((*model.folders, folder), offline=True)  # the hub has no files for the demo model
    pipeline = load_demo(folder, placement.dtype).to(placement.device)
    return DiffusersHost(pipeline, "demo", files, name="demo", captions=captions)


def load_checkpoint(path: Path, base: str, model: ModelSettings, dtype: torch.dtype) -> Any:
    """A diffusers pipeline from a checkpoint, its configuration from `--config`, the hub's cache or the hub.

    InputError for a folder that is not there, WeightsError for a file that does not load.
    """
    local = model.offline or model.config is not None or path.is_dir()
    if model.config is not None and not Path(model.config).is_dir():
        raise InputError(f"no folder {model.config}", "a folder in diffusers' layout", "correct --config FOLDER")
    config = None if model.config is None else Path(model.config)
    try:
        with offline_hub() if local else nullcontext():
            if BASES[base].network == TRANSFORMER:
                return flux_loading.load_flux(path, config, local, dtype)
            return _load_single_file(path, base, config, {"torch_dtype": dtype, "local_files_only": local})
    except LayerDiffuseError:
        raise
    except Exception as error:
        missing = local and not_cached(error)
        reason = "its configuration is not in the hub's cache, and nothing is downloaded" if missing else None
        raise WeightsError(
            f"{path} not loaded ({reason or first_line(error)})",
            f"a whole {BASES[base].title} checkpoint and its configuration files",
            f"without a network, pass --config FOLDER: the model's folder in diffusers' layout ({REST[base]})",
        ) from error


def _load_single_file(path: Path, base: str, config: Path | None, options: dict[str, Any]) -> Any:
    import diffusers

    if config is not None:
        options["config"] = str(config)
    if base == "sd15":
        options.update(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    return getattr(diffusers, PIPELINES[base]).from_single_file(str(path), **options)


def not_cached(error: BaseException | None) -> bool:
    """Whether an error goes back to a file that only the hub has."""
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    while error is not None:
        if isinstance(error, (LocalEntryNotFoundError, OfflineModeIsEnabled)):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def offline_hub() -> Iterator[None]:
    """No request by the hub's client, whoever calls it: diffusers asks the hub again when its own cache is empty."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    # older clients read the switch when they make a session, newer ones at each request
    renew = getattr(_http, "reset_sessions", lambda: None)
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    renew()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
        renew()


def choose_placement(model: ModelSettings, base: str = "") -> Placement:
    """The device asked for, else the best there is; half precision on CUDA, single elsewhere, unless asked for.

    Flux was trained in bfloat16, and is too large for more. InputError for a device or precision that is not there.
    """
    name = model.device or _best_device()
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # `meta` makes tensors that hold nothing
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # each backend refuses in its own way
        raise InputError(
            f"device {name!r} ({first_line(error)})", "a device of this machine", "try --device cpu"
        ) from error
    precision = model.precision or OWN_PRECISION.get(base) or ("float16" if device.type == "cuda" else "float32")
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r}", f"one of {', '.join(PRECISIONS)}", "choose one of these")
    return Placement(device, PRECISIONS[precision])


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
