"""Scripts that expand templates in prompts, `{a|b}`, in the ways of those that users have."""

from __future__ import annotations

import itertools
import math
import random
import re
from typing import Any

from fakes.scripts import ALWAYS_VISIBLE, Script

VARIANT = re.compile(r"\{([^{}]*)\}")


def one_of(template: str, seed: int) -> str:
    """The template with a choice for each variant."""
    choices = random.Random(seed)
    return VARIANT.sub(lambda found: choices.choice(found[1].split("|")), template)


def all_of(template: str) -> list[str]:
    """The template with every combination of choices."""
    texts, variants = VARIANT.split(template)[::2], [found.split("|") for found in VARIANT.findall(template)]
    combinations = itertools.product(*variants)
    return ["".join(itertools.chain(*itertools.zip_longest(texts, chosen, fillvalue=""))) for chosen in combinations]


class Expanding(Script):
    """Base of them: always on, without arguments of its own on this page."""

    args_from = args_to = 0

    def title(self) -> str:
        return type(self).__name__

    def show(self, is_img2img: bool) -> Any:
        return ALWAYS_VISIBLE


class EachPrompt(Expanding):
    """Every prompt of the job by itself."""

    def process(self, p: Any) -> None:
        p.all_prompts = [one_of(text, seed) for text, seed in zip(p.all_prompts, p.all_seeds, strict=True)]


class FirstPrompt(Expanding):
    """A prompt for each picture from the first one; the template is kept in the infotext, on `p`, by the script."""

    combinations = fixed_seed = False
    template = ""

    def process(self, p: Any) -> None:
        self.template, negative = p.all_prompts[0], p.all_negative_prompts[0]
        number = max(1, p.n_iter * p.batch_size)
        if self.combinations:
            p.all_prompts = all_of(self.template)
            number = len(p.all_prompts)
            p.n_iter = math.ceil(number / p.batch_size)
        p.all_seeds = [p.seed + (0 if self.fixed_seed else place) for place in range(number)]
        if not self.combinations:
            p.all_prompts = [one_of(self.template, seed) for seed in range(p.seed, p.seed + number)]
        p.all_negative_prompts = [one_of(negative, seed) for seed in range(p.seed, p.seed + number)]
        if p.enable_hr:
            same = p.all_hr_prompts[0] == self.template
            p.all_hr_prompts = list(p.all_prompts) if same else p.all_hr_prompts[:1] * number
        p.extra_generation_params["Template"] = p.prompt = self.template


class Combinations(FirstPrompt):
    """The same with a prompt for every combination, whatever the number of batches."""

    combinations = True


class SomeCombinations(FirstPrompt):
    """As many combinations as there were to be pictures; only its argument tells."""

    def process(self, p: Any, is_enabled: bool = True, is_combinatorial: bool = True) -> None:
        wanted = p.n_iter * p.batch_size
        super().process(p)
        p.all_prompts = list(itertools.islice(itertools.cycle(all_of(self.template)), wanted))


class FixedSeed(FirstPrompt):
    """The same with one seed for all pictures."""

    fixed_seed = True


class Adding(Expanding):
    """Words in front of and behind every prompt."""

    def process(self, p: Any) -> None:
        p.all_prompts = [f"best, {text}, sharp" for text in p.all_prompts]


class Replacing(Expanding):
    """Other prompts than those that were there."""

    def process(self, p: Any) -> None:
        p.all_prompts = ["something else"] * len(p.all_prompts)


class Spoiling(Expanding):
    """No list of texts any more."""

    def process(self, p: Any) -> None:
        p.all_prompts = [None] * len(p.all_prompts)
