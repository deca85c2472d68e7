"""What a user can choose for a run: a dataclass for pictures, one for the model; for API, command line and page.

No torch here: the command line's help and the page's form must come up at once.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .core.errors import InputError

MODES = {
    "single": "a transparent picture from a prompt",
    "from-foreground": "a background, or the blended picture, for a given foreground",
    "from-background": "a foreground, or the blended picture, for a given background",
    "joint": "foreground, background and blended picture together",
}
RESIZE_MODES = ("just-resize", "crop-and-resize", "resize-and-fill")
PASSES = (1, 2, 4, 8)
SIZE_STEP, SIZE_MIN, SIZE_MAX = 8, 64, 16_384
MAX_SEED = 2**32 - 1
IMAGE_FIELDS = ("foreground", "background", "blended", "init")


@dataclass(frozen=True)
class GenerateSettings:
    """One run: prompts, method, sampling and images; `None` means the model's own value.

    Images are PIL images or paths. `transparent=False` is the box ticked off: ordinary opaque pictures.
    Image i of a prompt uses the seed `seed + i`, whatever the batch; -1 draws a seed.
    """

    prompt: str | Sequence[str]
    negative_prompt: str = ""
    transparent: bool = True
    mode: str = "single"
    method: str | None = None  # an id or a label; None: the first method of the mode for the loaded base
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

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts as a tuple, stripped."""
        prompts = (self.prompt,) if isinstance(self.prompt, str) else tuple(self.prompt)
        return tuple(str(prompt).strip() for prompt in prompts)

    def validated(self) -> tuple[GenerateSettings, list[str]]:
        """These settings with sizes rounded up to 8 and a seed drawn, and notes on what changed; else InputError."""
        _check_prompts(self.prompts)
        for rule in NUMBER_RULES:
            rule.check(getattr(self, rule.name))
        for name, choices in CHOICE_RULES.items():
            _check_choice(name, getattr(self, name), choices)
        changes: dict[str, Any] = {"prompt": self.prompts}
        notes: list[str] = []
        for name in ("width", "height"):
            changes[name] = _rounded_size(name, getattr(self, name), notes)
        if self.seed < 0:
            changes["seed"] = secrets.randbelow(2**31)
        return replace(self, **changes), notes


@dataclass(frozen=True)
class ModelSettings:
    """Which model: nothing at all is the demo model that ships; else a single-file SD1.5 or SDXL checkpoint."""

    checkpoint: str | Path | None = None
    config: str | Path | None = None  # a folder in diffusers' layout, for loading a checkpoint without a network
    models: Sequence[str | Path] = field(default_factory=tuple)  # folders with layer files, looked in first
    demo: str | Path | None = None  # another demo model folder than the shipped one
    offline: bool = False
    device: str | None = None  # cpu, cuda, mps; None: the best there is
    precision: str | None = None  # float32, float16, bfloat16; None: what suits the device


@dataclass(frozen=True)
class NumberRule:
    """The range of a number among the settings, ends included."""

    name: str
    low: float
    high: float
    whole: bool = False
    optional: bool = False

    def check(self, value: Any) -> None:
        """Nothing when `value` is a finite number in the range; else InputError with the range."""
        if value is None and self.optional:
            return
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if number and self.low <= value <= self.high and (not self.whole or float(value).is_integer()):
            return
        kind = "a whole number" if self.whole else "a number"
        raise InputError(
            f"{self.name} {value!r}",
            f"{kind} from {self.low:g} to {self.high:g}",
            f"choose {self.name} in that range",
        )


NUMBER_RULES = (
    NumberRule("count", 1, 1000, whole=True),
    NumberRule("seed", -1, MAX_SEED, whole=True),
    NumberRule("steps", 1, 1000, whole=True),
    NumberRule("batch", 1, 1000, whole=True),
    NumberRule("guidance", 0, 100, optional=True),
    NumberRule("weight", 0, 2),
    NumberRule("stop_at", 0, 1),
    NumberRule("denoise", 0, 1),
)
CHOICE_RULES: dict[str, Sequence[Any]] = {"mode": tuple(MODES), "resize_mode": RESIZE_MODES, "passes": PASSES}


def _check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    if value not in choices:
        listed = ", ".join(str(choice) for choice in choices)
        raise InputError(f"{name} {value!r}", f"one of {listed}", f"choose {name} among them")


def _check_prompts(prompts: Sequence[str]) -> None:
    if not prompts or not all(prompts):
        raise InputError("an empty prompt", "a few words", 'say what the picture shows, such as "a red apple"')


def _rounded_size(name: str, value: int | None, notes: list[str]) -> int | None:
    if value is None:
        return None
    NumberRule(name, SIZE_MIN, SIZE_MAX, whole=True).check(value)
    rounded = -(-int(value) // SIZE_STEP) * SIZE_STEP
    if rounded != value:
        notes.append(f"{name} {value} rounded up to {rounded}: latents come in steps of {SIZE_STEP} pixels")
    return rounded


def parse_size(text: str) -> tuple[int, int]:
    """'WxH' or one number for a square -> (width, height)."""
    parts = text.lower().replace("×", "x").split("x")
    try:
        width, height = (int(parts[0]), int(parts[-1])) if len(parts) <= 2 else (0, 0)
    except ValueError:
        width = 0
    if width < 1 or height < 1:
        raise InputError(f"size {text!r}", "WIDTHxHEIGHT in pixels", "write for example --size 512x768")
    return width, height
