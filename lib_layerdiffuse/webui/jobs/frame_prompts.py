"""The prompts of frames: extra prompts go through whatever expands the main prompt, in any order of scripts.

Scripts expand a job's prompts in `process`, many by its first prompt only. So between the WebUI's `setup_prompts` and
its `init` the prompts are templates: the main prompt with a mark where an extra prompt goes, then each extra prompt.
Afterwards they are main prompts again, as infotexts tell them, the same for all frames of a result; the frames' own
texts come in with each batch, when the tags of networks are taken out.
"""

from __future__ import annotations

import inspect
import logging
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...core.errors import unforeseen
from ...core.methods import own_prompt, round_up_batch
from ...form.arguments import BY_NAME, INFOTEXT_PREFIX
from ...form.frames import FRAMES
from ...sets.chains import counted
from ..host.modules import host_module
from ..wrapping import once
from .request import Request
from .telling import SEED_KEY, PerPicture, per_picture

logger = logging.getLogger(__name__)

TEMPLATE_KEY = f"{INFOTEXT_PREFIX}{{}}_template"  # of the argument's name: what was typed, where it was expanded
MARK, SEPARATOR = "\u241f", "\u241e"  # pictures of control characters: nobody types them, no script reads them
NETWORK = re.compile(r"<\w+:[^>]+>")
AND, WEIGHT = re.compile(r"\bAND\b"), re.compile(r"\s*:\s*[-+]?(?:\d+\.?|\d*\.\d+)\s*$")
PLAIN = re.compile(r"""[\w\s,.;:!?'"()\[\]|/&+-]*""")  # attention and prompt editing too: what no script expands
TEXTS = ("all_prompts", "all_hr_prompts")
PER_PICTURE = (*TEXTS, "all_negative_prompts", "all_hr_negative_prompts")
BATCH = {"all_prompts": ("prompts", "extra_network_data"), "all_hr_prompts": ("hr_prompts", "hr_extra_network_data")}


@dataclass(frozen=True)
class Expansion:
    """A template after other scripts: the main prompt before and behind an extra prompt's place, the extra prompts."""

    head: str
    rest: str
    extras: tuple[str, ...] | None  # None: the text does not have them any more

    @classmethod
    def read(cls, text: str, count: int) -> Expansion:
        """The parts of a text; what a script put behind `count` extra prompts belongs to the main prompt."""
        body, *sections = text.split(SEPARATOR)
        head, mark, rest = body.partition(MARK)
        if not mark:
            head, rest = "", body
        if len(sections) != (count + 1 if count else 0):
            return cls(head, rest, None)
        extras = tuple(section.strip() for section in sections[:count])
        return cls(head, rest + "".join(sections[count:]), extras)

    @property
    def main(self) -> str:
        """The main prompt."""
        return self.head + self.rest


class FramePrompts:
    """The prompts of one job whose results have several frames.

    `frames` are those of a result in this job; `named` are all that may have a prompt, in other steps of a chain too.
    """

    def __init__(self, request: Request, frames: Sequence[str], named: Sequence[str]):
        self.request, self.frames = request, frames
        given = {name: getattr(request.arguments, frame.prompt) for name, frame in FRAMES.items()}
        self.given = {frame: given[frame] for frame in named if given[frame]}
        self.templates = self.given if any(map(is_template, self.given.values())) else {}
        self.extras: list[dict[str, str]] = []  # of each picture of the job, by frame
        self.heads: dict[str, list[str]] = {}  # of each picture: what stands before its extra prompt
        self.set_seeds: list[int] = []  # of each picture: that of its result, by which all frames are made again
        self.own_seeds: dict[str, list[int]] = {}  # of each picture: those that a frame has of its own
        self._before: dict[str, list[str]] = {}
        self._once: list[Callable[[], None]] = []

    @property
    def p(self) -> Any:
        """What the WebUI processes."""
        return self.request.p

    def install(self) -> None:
        """Take part in the coming `setup_prompts`."""
        self._once = [once(self.p, "setup_prompts", self._set_up)]

    def recall(self, extras: list[dict[str, str]], heads: dict[str, list[str]]) -> None:
        """Use the prompts that an earlier step of the chain used."""
        self.extras, self.heads = extras, heads

    def remove(self) -> None:
        """Give `p` its own methods back where they were not called, and its own seeds in texts."""
        while self._once:
            self._once.pop()()
        if self.set_seeds:
            self.p.extra_generation_params.pop(SEED_KEY, None)

    # --- before other scripts

    def _set_up(self, original: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """The WebUI's own preparation, styles included, of prompts with a mark; then they become templates."""
        p, blank = self.p, not self.p.prompt
        if self.given:
            p.prompt = marked(p.prompt)
            if getattr(p, "hr_prompt", ""):  # an empty one becomes the main prompt
                p.hr_prompt = marked(p.hr_prompt)
        result = original(*arguments, **named)
        for name in ("prompt", "hr_prompt", "main_prompt"):
            if getattr(p, name, None):
                setattr(p, name, unmarked(getattr(p, name), blank))
        for name in TEXTS:
            if isinstance(getattr(p, name, None), list):
                setattr(p, name, [self._template(without_comma(text, blank)) for text in getattr(p, name)])
        self._before = {name: list(values) for name, values in self._lists().items()}
        self._once.append(once(p, "init", self._settle))
        return result

    def _template(self, text: str) -> str:
        """What other scripts are to expand; nothing else than the prompt where they need not know more."""
        if self.templates:
            return SEPARATOR.join([text, *self.templates.values(), ""])
        return text.removeprefix(MARK)

    def _lists(self) -> dict[str, list[str]]:
        """The WebUI's lists with a text for each picture of the job."""
        found = {name: getattr(self.p, name, None) for name in PER_PICTURE}
        return {name: values for name, values in found.items() if isinstance(values, list)}

    # --- after other scripts

    def _settle(self, original: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        try:
            expansions = self._read()
            if not self.request.failed:
                self._take(expansions)
        except Exception as error:  # whatever another script left: the job ends with a message
            logger.exception("the prompts of frames could not be read")
            self.request.fail(unforeseen(error), logged=True)
            self.request.stop()
        return original(*arguments, **named)

    def _read(self) -> dict[str, list[Expansion]]:
        """The parts of all templates; `p` has main prompts again, wherever a script copied a template to."""
        p, count = self.p, len(self.templates)
        lists = {name: values for name, values in self._lists().items() if name in TEXTS}
        read = {name: self._parts(name, values) for name, values in lists.items()}
        for name, expansions in read.items():
            setattr(p, name, [expansion.main for expansion in expansions])
        for kept in (vars(p), p.extra_generation_params):
            copies = {key: value for key, value in kept.items() if isinstance(value, str)}
            kept.update({key: Expansion.read(value, count).main for key, value in copies.items() if MARK in value})
        return read

    def _take(self, expansions: dict[str, list[Expansion]]) -> None:
        """Give each picture of the job its texts and its seeds."""
        p, alone = self.p, self._is_alone()
        sources = self._sources(expansions, alone)
        for name, values in self._lists().items():
            setattr(p, name, [values[source] for source in sources if source < len(values)])
        self._count_seeds(alone)
        if alone:
            size = round_up_batch(p.batch_size, len(self.frames))
            self.request.changes.set("batch_size", size)
            self.request.changes.set("n_iter", math.ceil(len(sources) / size))
        for name, read in expansions.items():
            self.heads[name] = [read[source].head for source in sources if source < len(read)]
        self.extras = [self._extras(expansions["all_prompts"][source]) for source in sources]
        self._tell()
        self._tell_seeds()

    def _is_alone(self) -> bool:
        """Whether each text stands for a whole result: another script made more or fewer of them, or a list is odd."""
        count = len(self.p.all_prompts)
        odd = count != len(self._before["all_prompts"]) or count % len(self.frames) > 0
        return odd or makes_combinations(self.p)

    def _sources(self, expansions: dict[str, list[Expansion]], alone: bool) -> list[int]:
        """For each picture, the place of its texts: those of a result's first frame where a script expanded them."""
        count, frames = len(self.p.all_prompts), len(self.frames)
        if alone:
            return [place // frames for place in range(count * frames)]
        before = {name: self._parts(name, values) for name, values in self._before.items()}
        if before == {name: expansions.get(name, values) for name, values in self._lists().items()}:
            return list(range(count))
        sources: list[int] = []
        for first in range(0, count, frames):
            part = slice(first, first + frames)
            alike = all(values[part] == values[part][:1] * len(values[part]) for values in before.values())
            sources += [first] * frames if alike else range(count)[part]
        return sources

    def _parts(self, name: str, texts: list[str]) -> list[Any]:
        """The parts of templates; other texts as they are."""
        return [Expansion.read(text, len(self.templates)) for text in texts] if name in TEXTS else texts

    def _count_seeds(self, alone: bool) -> None:
        """Frames of a result have seeds that count up, as pictures of a plain batch have."""
        p, frames = self.p, len(self.frames)
        step = 0 if getattr(p, "subseed_strength", 0) else 1
        if alone:
            p.all_seeds = spread(p.all_seeds, frames, step)
            if getattr(p, "all_subseeds", None):
                p.all_subseeds = spread(p.all_subseeds, frames, 1)
        elif step and not isinstance(p.seed, list):
            for first in range(0, len(p.all_seeds), frames):
                part = slice(first, first + frames)
                if len(set(p.all_seeds[part])) == 1:
                    p.all_seeds[part] = spread(p.all_seeds[first : first + 1], frames, 1)

    def _extras(self, expansion: Expansion) -> dict[str, str]:
        if expansion.extras is None:
            self.request.note("another script took the extra prompts' places away, so they are used as they were typed")
            return self.given
        return self.given | dict(zip(self.templates, expansion.extras, strict=False))

    def _tell(self) -> None:
        """The infotext has the extra prompts as they are used, and beside them what was typed."""
        parameters = self.p.extra_generation_params
        for frame, template in self.given.items():
            name = FRAMES[frame].prompt
            texts = [extras[frame] for extras in self.extras]
            parameters[BY_NAME[name].infotext_key] = texts[0] if len(set(texts)) == 1 else PerPicture(texts, template)
            if set(texts) != {template}:
                parameters[TEMPLATE_KEY.format(name)] = template

    def _tell_seeds(self) -> None:
        """Frames whose seeds count up tell that of their result: with their own, pasted, they would make another."""
        p, frames = self.p, len(self.frames)
        firsts = p.all_seeds[::frames]
        running = [first + place for first in firsts for place in range(frames)][: len(p.all_seeds)]
        own = self.own_seeds = self._chosen_seeds(firsts)
        if frames > 1 and (running == p.all_seeds or own):
            self.set_seeds = [first for first in firsts for _ in range(frames)][: len(p.all_seeds)]
            p.extra_generation_params[SEED_KEY] = per_picture(self.set_seeds)
        self._use_own_seeds()

    def _chosen_seeds(self, firsts: Sequence[int]) -> dict[str, list[int]]:
        """The seeds that frames have of their own, one a picture of the job: they count on as those of results do."""
        if len(self.frames) == 1:  # of a chain's step
            return {}
        chosen = {frame: getattr(self.request.arguments, FRAMES[frame].seed) for frame in self.frames}
        return {
            frame: [counted(seed, first - firsts[0]) for first in firsts for _ in self.frames]
            for frame, seed in chosen.items()
            if seed >= 0
        }

    def _use_own_seeds(self) -> None:
        """Frames draw from their own seeds as far on as from that of their result."""
        p = self.p
        for frame, seeds in self.own_seeds.items():
            p.extra_generation_params[BY_NAME[FRAMES[frame].seed].infotext_key] = per_picture(seeds)
            for place in range(self.frames.index(frame), len(p.all_seeds), len(self.frames)):
                p.all_seeds[place] = counted(seeds[place], p.all_seeds[place] - self.set_seeds[place])

    # --- with each batch

    def begin_batch(self) -> None:
        """Take part in the coming `parse_extra_network_prompts`."""
        if self.given:
            self._once.append(once(self.p, "parse_extra_network_prompts", self._parse))

    def _parse(self, original: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        result = original(*arguments, **named)
        try:
            for name in BATCH if getattr(self.p, "enable_hr", False) else ("all_prompts",):
                self._join(name)
        except Exception as error:  # the WebUI would end in its own message
            logger.exception("the prompts of frames could not be joined")
            self.request.fail(unforeseen(error), logged=True)
        return result

    def _join(self, name: str) -> None:
        """Give the prompts of a batch, whose tags are taken out already, to their frames; load what extra ones name."""
        p, (prompts, data) = self.p, BATCH[name]
        first = p.iteration * p.batch_size
        texts, heads = getattr(p, prompts), self.heads[name][first:]
        for place, (prompt, extras, head) in enumerate(zip(texts, self.extras[first:], heads, strict=False)):
            extras = {frame: without_tags(text)[0] for frame, text in extras.items()}
            head = without_tags(head)[0]
            cut = len(head) if prompt.startswith(head) else 0
            extra = extras.get(self.frames[place % len(self.frames)], "")
            texts[place] = prompt[:cut] + own_prompt(extra, prompt[cut:])
        for start in range(0, len(texts), len(self.frames)):
            part = slice(start, start + len(self.frames))
            texts[part] = evened(texts[part])
        self._load(data, self.extras[first])

    def _load(self, name: str, extras: dict[str, str]) -> None:
        """Networks that a batch's first result names, as the WebUI takes those of its first prompt."""
        tags = " ".join(tag for frame in self.frames for tag in NETWORK.findall(extras.get(frame, "")))
        if not tags:
            return
        if getattr(self.p, "disable_extra_networks", False):
            told = f"{tags} in an extra prompt is passed over: extra networks are switched off"
            self.request.note(told, in_files=False)
            return
        loaded = getattr(self.p, name, None) or {}
        for kind, found in without_tags(tags)[1].items():
            have = loaded.setdefault(kind, [])
            have += [one for one in found if one not in have]
        setattr(self.p, name, loaded)
        if len(self.frames) > 1:
            told = f"{tags} in an extra prompt works on all pictures of a batch, as it changes the whole UNet"
            self.request.note(told, in_files=False)


def marked(prompt: Any) -> Any:
    """A prompt, or a list of them, with the mark in front."""
    return [MARK + text for text in prompt] if isinstance(prompt, list) else MARK + prompt


def unmarked(prompt: Any, blank: bool) -> Any:
    """The same as the WebUI would have it; a style is joined by a comma to a prompt that is not empty."""
    if isinstance(prompt, list):
        return [unmarked(text, blank) for text in prompt]
    return without_comma(prompt, blank).replace(MARK, "")


def without_comma(text: str, blank: bool) -> str:
    """A text without the comma between the mark of an empty prompt and a style."""
    return text.replace(f"{MARK}, ", MARK) if blank else text


def is_template(text: str) -> bool:
    """Whether another script may find something to expand in an extra prompt."""
    text = NETWORK.sub("", text)
    return "__" in text or not PLAIN.fullmatch(text)


def evened(prompts: list[str]) -> list[str]:
    """Prompts of a result with equally many parts joined by AND, as frames share attention part by part.

    What is added repeats a prompt's last part with weight 0, which does not guide.
    """
    parts = [AND.split(prompt) for prompt in prompts]
    most = max(map(len, parts))
    added = [f" AND {WEIGHT.sub('', own[-1]).strip()} :0" * (most - len(own)) for own in parts]
    return [prompt + more for prompt, more in zip(prompts, added, strict=True)]


def without_tags(text: str) -> tuple[str, Any]:
    """A text without tags of networks, and what they name, by the WebUI's own reading."""
    (plain,), found = host_module("extra_networks").parse_prompts([text])
    return plain, found


def spread(seeds: Sequence[int], frames: int, step: int) -> list[int]:
    """Seeds of results -> seeds of their frames: consecutive results leave room, equal ones stay equal."""
    room = frames if step else 1
    return [seeds[0] + (seed - seeds[0]) * room + frame * step for seed in seeds for frame in range(frames)]


def makes_combinations(p: Any) -> bool:
    """Whether a script of the job makes one prompt for each combination (dynamic prompts' "combinatorial")."""
    for script in getattr(p.scripts, "alwayson_scripts", ()):
        signature = inspect.signature(script.process)
        if "is_combinatorial" in signature.parameters:
            given = signature.bind_partial(p, *p.script_args[script.args_from : script.args_to])
            given.apply_defaults()
            return bool(given.arguments.get("is_enabled", True) and given.arguments.get("is_combinatorial"))
    return False
