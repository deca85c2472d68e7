"""What a user can choose for a run: a dataclass for pictures, one for the model; for API, command line and page.

No torch here: the command line's help and the page's form must come up at once.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..core.errors import InputError
from ..core.modes import MODES
from ..core.picture.resize_modes import ResizeMode
from ..form.frames import FRAMES, PROMPT_SETTINGS
from ..form.ranges import Range, checked_choice, checked_path, checked_text, shown

RESIZE_MODES = tuple(mode.key for mode in ResizeMode)
PASSES = (1, 2, 4, 8)
HIDDEN_COLOURS = ("padded", "as-decoded", "cleared")
PRECISIONS = ("float32", "float16", "bfloat16")
SIZE_STEP, SIZE_MIN, SIZE_MAX = 8, 64, 16_384
MAX_SEED = 2**32 - 1
IMAGE_FIELDS = (*FRAMES, "init", "control_image")


@dataclass(frozen=True)
class GenerateSettings:
    """One run: prompts, method, sampling and images; `None` means the model's own value.

    Images are PIL images or paths. `transparent=False` is the box ticked off: ordinary opaque pictures.
    Image i of a prompt uses the seed `seed + i`, whatever the batch; -1 draws a seed. The layers of a chain of several
    methods share the seed of their set. A prompt may be empty where each layer that is painted has one of its own.
    """

    prompt: str | Sequence[str]
    negative_prompt: str = ""
    transparent: bool = True
    mode: str = "single"
    method: str | None = None  # an id or a label; None: the first method of the mode for the loaded base
    chain: str | None = None  # joint, from-foreground or from-background: whole sets, by as many methods as it takes
    count: int = 4  # pictures (or groups of layers) a prompt
    seed: int = -1
    steps: int = 20
    guidance: float | None = None
    width: int | None = None
    height: int | None = None
    sampler: str | None = None
    weight: float = 1.0
    stop_at: float = 1.0
    passes: int = 8
    clear_haze: bool = True  # alpha of 1 and 2 of 255 becomes 0, 253 and 254 become 255, soft gradients excepted
    hidden_colours: str = "padded"  # those under alpha 0: the visible ones go on, or as decoded, or black
    batch: int = 4  # pictures (or groups) that go through the model at once
    foreground: Any = None
    background: Any = None
    blended: Any = None
    init: Any = None
    denoise: float = 0.75
    resize_mode: str = "crop-and-resize"
    foreground_prompt: str = ""
    background_prompt: str = ""
    blended_prompt: str = ""
    foreground_seed: int = -1  # of this layer of the first set, the next ones count on; -1: that of its set
    background_seed: int = -1
    blended_seed: int = -1
    layer_file: str | Path | None = None  # in place of the usual file: a name in the folders, or the Path of any file
    decoder_file: str | Path | None = None
    encoder_file: str | Path | None = None
    controlnet: str | Path | None = None  # a ControlNet's file for the base; None: the demo model's own, or none
    control_image: Any = None  # what it follows, as it was trained: for lines, white on black
    control_strength: float = 1.0
    draw_lines: bool = False  # the control image is an ordinary picture: its lines are drawn first

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts as a tuple, stripped."""
        prompts = (self.prompt,) if isinstance(self.prompt, str) else tuple(self.prompt)
        return tuple(prompt.strip() for prompt in prompts)

    def validated(self) -> tuple[GenerateSettings, list[str]]:
        """These settings with sizes rounded up to 8 and a seed drawn, and notes on what changed; else InputError."""
        _check_prompts(self.prompt)
        changes: dict[str, Any] = {"prompt": self.prompts}
        for name, rule in NUMBER_RULES.items():
            value = getattr(self, name)
            changes[name] = None if value is None and name in OPTIONAL_NUMBERS else rule.checked(name, value)
        for name, choices in CHOICE_RULES.items():
            changes[name] = checked_choice(name, getattr(self, name), choices)
        for name in TEXT_FIELDS:
            changes[name] = checked_text(name, getattr(self, name), optional=name in OPTIONAL_TEXTS)
        for name in IMAGE_FIELDS:
            _check_image(name, getattr(self, name))
        for name in SWITCHES:
            _check_switch(name, getattr(self, name))
        for name in FILE_FIELDS:
            value = getattr(self, name)
            checked_path(name, None if value == "" else value)
        checked_path("controlnet", self.controlnet)
        if not any(getattr(self, name).strip() for name in PROMPT_SETTINGS.values()):
            check_no_empty_prompt(self.prompts)
        notes: list[str] = []
        for name in ("width", "height"):
            changes[name] = _rounded_size(name, changes[name], notes)
        if changes["seed"] < 0:
            changes["seed"] = secrets.randbelow(2**31)
        return replace(self, **changes), notes


@dataclass(frozen=True)
class CompleteSettings(GenerateSettings):
    """Settings with the loaded model's own values where none were chosen."""

    guidance: float = 1.0
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class ModelSettings:
    """Which model: nothing at all is the demo model that ships; else a single-file SD1.5, SDXL or Flux checkpoint.

    Of Flux a folder in diffusers' layout will do too; its single file holds the transformer, and `config` the rest.
    """

    checkpoint: str | Path | None = None
    config: str | Path | None = None  # a folder in diffusers' layout, for loading a checkpoint without a network
    models: str | Path | Sequence[str | Path] = field(
        default_factory=tuple
    )  # folders with layer files, looked in first
    demo: str | Path | None = None  # another demo model folder than the shipped one
    offline: bool = False
    device: str | None = None  # cpu, cuda, mps; None: the best there is
    precision: str | None = None  # float32, float16, bfloat16; None: what suits the device

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders with layer files as paths."""
        models = (self.models,) if isinstance(self.models, (str, os.PathLike)) else self.models
        return tuple(map(Path, models))

    def validated(self) -> ModelSettings:
        """These settings with `models` as a tuple of paths; InputError for what is no path, text or switch."""
        for name in ("checkpoint", "config", "demo"):
            checked_path(name, getattr(self, name))
        _check_switch("offline", self.offline)
        models = (self.models,) if isinstance(self.models, (str, os.PathLike)) else self.models
        if models is None or not isinstance(models, Iterable):
            raise InputError(f"models {shown(models)}", "a folder or several", "name folders with layer files")
        models = tuple(checked_path("models", folder, optional=False) for folder in models)
        device = None if self.device is None else checked_text("device", str(self.device))
        if self.precision is not None:
            checked_choice("precision", self.precision, PRECISIONS)
        return replace(self, models=models, device=device)

    def notes(self) -> list[str]:
        """Notes on settings that change nothing beside the others."""
        unused = {
            "demo": self.demo is not None and self.checkpoint is not None,
            "config": self.config is not None and self.checkpoint is None,
        }
        why = {"demo": "a checkpoint was named", "config": "it belongs to a checkpoint, and none was named"}
        return [f"{name} is not used: {why[name]}" for name, is_unused in unused.items() if is_unused]


NUMBER_RULES = {
    "count": Range(1, 1000, whole=True),
    "seed": Range(-1, MAX_SEED, whole=True),
    **{frame.seed_setting: Range(-1, MAX_SEED, whole=True) for frame in FRAMES.values()},
    "steps": Range(1, 1000, whole=True),
    "batch": Range(1, 1000, whole=True),
    "guidance": Range(0, 100),
    "weight": Range(0, 2),
    "stop_at": Range(0, 1),
    "denoise": Range(0, 1),
    "control_strength": Range(0, 2),
    "width": Range(SIZE_MIN, SIZE_MAX, whole=True),
    "height": Range(SIZE_MIN, SIZE_MAX, whole=True),
}
OPTIONAL_NUMBERS = ("guidance", "width", "height")
CHOICE_RULES: dict[str, Sequence[Any]] = {
    "mode": tuple(MODES),
    "resize_mode": RESIZE_MODES,
    "passes": PASSES,
    "hidden_colours": HIDDEN_COLOURS,
}
FILE_FIELDS = ("layer_file", "decoder_file", "encoder_file")
SWITCHES = ("transparent", "clear_haze", "draw_lines")
OPTIONAL_TEXTS = ("method", "chain", "sampler")
TEXT_FIELDS = ("negative_prompt", *PROMPT_SETTINGS.values(), *OPTIONAL_TEXTS)


def _check_prompts(prompt: Any) -> None:
    prompts = (prompt,) if isinstance(prompt, str) else prompt
    if not isinstance(prompts, Iterable) or isinstance(prompts, (bytes, Mapping)):
        raise InputError(f"prompt {shown(prompt)}", "a text, or several", 'write for example "a red apple"')
    prompts = tuple(prompts)
    for each in prompts:
        checked_text("prompt", each)
    if not prompts:
        check_no_empty_prompt([""])


def check_no_empty_prompt(prompts: Iterable[str]) -> None:
    """InputError where a prompt says nothing."""
    if not all(each.strip() for each in prompts):
        raise InputError("an empty prompt", "a few words", 'say what the picture shows, such as "a red apple"')


def _check_switch(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise InputError(f"{name} {shown(value)}", "True or False", f"set {name} to one of them")


def _check_image(name: str, value: Any) -> None:
    """A PIL image is told by what it has, so that nothing is imported for those who give a path or none."""
    if value is None or (hasattr(value, "getpixel") and hasattr(value, "mode")):
        return
    if not isinstance(value, (str, os.PathLike)):
        raise InputError(f"{name} {shown(value)}", "a PIL image or the path of one", f"open the file of {name} first")
    checked_path(name, value)


def _rounded_size(name: str, value: int | None, notes: list[str]) -> int | None:
    if value is None:
        return None
    rounded = -(-value // SIZE_STEP) * SIZE_STEP
    if rounded != value:
        notes.append(f"{name} {value} rounded up to {rounded}: latents come in steps of {SIZE_STEP} pixels")
    return rounded


def parse_size(text: str) -> tuple[int, int]:
    """'WxH' or one number for a square -> (width, height). InputError for anything else."""
    parts = text.lower().replace("×", "x").split("x")
    try:
        width, height = (int(parts[0]), int(parts[-1])) if len(parts) <= 2 else (0, 0)
    except ValueError:
        width = height = 0
    if width < 1 or height < 1:
        raise InputError(f"size {shown(text)}", "WIDTHxHEIGHT in pixels", "write for example --size 512x768")
    return width, height
