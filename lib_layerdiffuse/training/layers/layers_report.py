"""`layers-report`: paints sets of prompts with the layer methods of a model, and measures how well their layers fit.

What a method must be given is painted by the model itself: a foreground by the base's single method, a background as a
plain picture, a blended picture as the one over the other. Beside each figure stands that of plain pictures of the same
prompts and seeds, painted without the method.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...core.errors import InputError, WeightsError
from ...core.methods import BACKGROUND, BLENDED, FOREGROUND, Method, choose_method, methods_for
from ...standalone.settings import GenerateSettings
from ...standalone.vocabulary import Scene, read_scenes, read_things
from ..layer_sets.compose import held_out_pairs
from ..layer_sets.layer_captions import PROMPTS_FORM, blended_captions, foreground_captions
from ..layer_sets.layer_figures import FIGURES, composite, figures_of, quartiles, shares

LONGEST = 10_000  # prompts of a file


@dataclass(frozen=True)
class SetPrompt:
    """What a set shows, and what its foreground and its background show alone, for methods that must be given them."""

    prompt: str
    foreground: str = ""
    background: str = ""


@dataclass(frozen=True)
class PaintedSet:
    """The layers of a set by name, given ones too, and the plain pictures in their place; [H,W,4] in [0,1]."""

    prompt: str
    layers: Mapping[str, np.ndarray]
    plain: Mapping[str, np.ndarray]


@dataclass
class SetPainter:
    """Paints sets with a loaded host; given and plain pictures of a prompt are painted once for all methods."""

    host: Any
    settings: GenerateSettings
    frames: int = 3  # of the method that has most
    _kept: dict[str, Any] = field(default_factory=dict)  # of the prompt at hand

    def begin(self, seed: int) -> None:
        """Another prompt."""
        self.settings = replace(self.settings, seed=seed)
        self._kept.clear()

    def paint(self, method: Method, prompt: SetPrompt) -> PaintedSet:
        """The set of a prompt and the plain pictures beside it."""
        given = {name: self.given(name, prompt) for name in method.images}
        known = {name: _array(image) for name, image in given.items()}
        made = self._run(prompt.prompt, method=method.id, **given)
        plain = self._once("plain", lambda: self._run(prompt.prompt, transparent=False, count=self.frames))
        return PaintedSet(
            prompt.prompt,
            {**known, **dict(zip(method.frames, made, strict=True))},
            {**known, **dict(zip(method.frames, plain, strict=False))},
        )

    def given(self, name: str, prompt: SetPrompt) -> Image.Image:
        """The picture of a layer that a method must be given."""
        return self._once(name, lambda: GIVEN[name](self, prompt))

    def foreground(self, prompt: SetPrompt) -> Image.Image:
        """The thing alone, RGBA."""
        return _image(self._run(prompt.foreground or prompt.prompt, method=choose_method(self.host.base).id)[0], "RGBA")

    def background(self, prompt: SetPrompt) -> Image.Image:
        """The scene alone, RGB."""
        return _image(self._run(prompt.background or prompt.prompt, transparent=False)[0], "RGB")

    def blended(self, prompt: SetPrompt) -> Image.Image:
        """The one over the other, RGB."""
        layers = [_array(self.given(name, prompt)) for name in (FOREGROUND, BACKGROUND)]
        return _image(composite(*layers), "RGB")

    def _once(self, name: str, paint: Callable[[], Any]) -> Any:
        if name not in self._kept:
            self._kept[name] = paint()
        return self._kept[name]

    def _run(self, prompt: str, **choices: Any) -> list[np.ndarray]:
        settings, _ = replace(self.settings, prompt=prompt, **{"count": 1, **choices}).validated()
        return [_array(picture.image) for picture in self.host.run(settings)]


GIVEN: Mapping[str, Callable[[SetPainter, SetPrompt], Image.Image]] = {
    FOREGROUND: SetPainter.foreground,
    BACKGROUND: SetPainter.background,
    BLENDED: SetPainter.blended,
}


def _array(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGBA"), np.float32) / 255


def _image(pixels: np.ndarray, mode: str) -> Image.Image:
    levels = np.rint(pixels * 255).clip(0, 255).astype(np.uint8)
    return Image.fromarray(levels).convert(mode)


@dataclass
class MethodReport:
    """What was measured of one method, set by set; the pictures of the first sets are kept for a grid."""

    method: Method
    keep: int
    kept: list[PaintedSet] = field(default_factory=list)
    measured: list[dict[str, tuple[float | None, float | None]]] = field(default_factory=list)
    alphas: list[tuple[float, float]] = field(default_factory=list)  # mean ones of the foregrounds

    def add(self, painted: PaintedSet) -> None:
        """Measure a set."""
        self.measured.append(figures_of(self.method, painted.layers, painted.plain))
        if FOREGROUND in self.method.frames:
            own, plain = (float(part[FOREGROUND][..., 3].mean()) for part in (painted.layers, painted.plain))
            self.alphas.append((own, plain))
        if len(self.kept) < self.keep:
            self.kept.append(painted)

    def figures(self) -> dict[str, Any]:
        """Medians, quartiles and shares of all sets, with the method and for plain pictures."""
        found: dict[str, Any] = {"sets": len(self.measured)}
        for row in FIGURES:
            if row.holds(self.method):
                pairs = [measured[row.name] for measured in self.measured]
                found[row.name] = _both(quartiles, pairs)
        if self.alphas:
            found["foregrounds"] = _both(shares, self.alphas)
        return found


def _both(summary: Callable[[Sequence[Any]], Any], pairs: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
    with_method, plain = zip(*pairs, strict=True)
    return {"method": summary(with_method), "plain": summary(plain)}


def report_on(
    painter: SetPainter, methods: Sequence[Method], prompts: Sequence[SetPrompt], keep: int, progress: Callable = iter
) -> list[MethodReport]:
    """A report on each method over all prompts; the seed of a set is that of the settings and the set's number."""
    reports = [MethodReport(method, keep) for method in methods]
    first, painter.frames = painter.settings.seed, max(len(method.frames) for method in methods)
    for number in progress(range(len(prompts))):
        painter.begin(first + number * SEEDS_A_SET)
        for report in reports:
            report.add(painter.paint(report.method, prompts[number]))
    painter.begin(first)
    return reports


SEEDS_A_SET = 8  # no two sets share the noise of a picture


def read_prompts(path: Path) -> list[SetPrompt]:
    """The prompts of a file in one of the forms of `PROMPTS_FORM`; InputError for anything else."""
    try:
        text = path.read_text(encoding="utf-8")
        rows = json.loads(text) if text.lstrip().startswith("[") else text.splitlines()
        prompts = [_prompt(row) for row in rows if not isinstance(row, str) or row.strip()]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{path} ({type(error).__name__}: {error})", PROMPTS_FORM, "correct the file") from error
    if not 0 < len(prompts) <= LONGEST:
        raise InputError(f"{path} with {len(prompts)} prompts", f"1 to {LONGEST}: {PROMPTS_FORM}", "correct the file")
    return prompts


def _prompt(row: Any) -> SetPrompt:
    if isinstance(row, str):
        return SetPrompt(row.strip())
    known = {"prompt", "foreground", "background"}
    if not isinstance(row, dict) or not set(row) <= known or not all(isinstance(text, str) for text in row.values()):
        raise ValueError(f"{json.dumps(row)[:80]} is no prompt")
    if not row["prompt"].strip():
        raise ValueError("an empty prompt")
    return SetPrompt(**row)


def held_out_prompts(folder: str | Path | None, count: int) -> list[SetPrompt]:
    """Prompts of things in scenes that were kept out of training, drawn from a demo model's words by a fixed seed.

    InputError for words without scenes.
    """
    things = [names for group in read_things(folder).values() for names in group]
    scenes = {scene.name: scene for scene in read_scenes(folder) if scene.captions and scene.phrases}
    pairs = [(names, scenes[scene]) for names in things for _, scene in held_out_pairs([names[0]], scenes)]
    if not pairs:
        raise InputError("a model whose words list no scenes", "things and scenes", "name a file with --prompts FILE")
    order = np.random.default_rng(0).permutation(len(pairs))[:count]
    return [_pair_prompt(*pairs[number]) for number in order]


def _pair_prompt(names: Sequence[str], scene: Scene) -> SetPrompt:
    return SetPrompt(
        blended_captions([names], scene.phrases)[0], foreground_captions([names])[0], background=scene.captions[0]
    )


def methods_of(host: Any, names: Sequence[str] | None) -> list[Method]:
    """The named methods, else all layer methods of the loaded base whose weights are there.

    WeightsError where there are none.
    """
    if names:
        return [choose_method(host.base, name=name) for name in names]
    rows = [method for method in methods_for(host.base) if method.extra_prompts or method.images]
    there = [method for method in rows if host.files.offers(method)]
    if not there:
        wanted = ", ".join(f"{method.weights}.safetensors" for method in rows)
        raise WeightsError("no file of a layer method", f"one of {wanted}", "train one with `train layers`")
    return there


# --- the report as a table


def table(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """The figures by method id as a Markdown table."""
    lines = ["| method | figure | layers | plain pictures |", "|---|---|---|---|"]
    for method, found in figures.items():
        for row in FIGURES:
            if row.name in found:
                cells = [_spread(found[row.name][kind]) for kind in ("method", "plain")]
                lines.append(f"| {method} | {row.title} | {cells[0]} | {cells[1]} |")
        if "foregrounds" in found:
            cells = [_share(found["foregrounds"][kind]) for kind in ("method", "plain")]
            lines.append(f"| {method} | foregrounds neither empty nor everything | {cells[0]} | {cells[1]} |")
    return "\n".join(lines) + "\n"


def _spread(row: Mapping[str, Any]) -> str:
    if not row["sets"]:
        return "-"
    return f"{row['median']:.1f} ({row['lower_quartile']:.1f} to {row['upper_quartile']:.1f}, {row['sets']} sets)"


def _share(row: Mapping[str, float]) -> str:
    return f"{100 * row['neither']:.0f} %"
