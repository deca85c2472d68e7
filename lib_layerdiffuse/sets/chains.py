"""Chains of methods as rows of a table: the steps that make a whole set of layers, and the plan of one such run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from numbers import Integral

from ..core.bases import BASES
from ..core.errors import BaseMismatchError, InputError
from ..core.methods import BACKGROUND, BLENDED, FOREGROUND, Method, find_method, refuse_missing

FRAMES = (FOREGROUND, BACKGROUND, BLENDED)  # in the order in which a user reads them
MAX_SEED = 2**32 - 1
SEED_LIKE_SET = -1  # a layer's seed that was not chosen: that of its set


@dataclass(frozen=True)
class Given:
    """A picture that a step sees: its frame, and the number of the step that made it; None where the user gives it."""

    frame: str
    step: int | None = None


@dataclass(frozen=True)
class Step:
    """One run of a method within a chain; each frame that it makes has that layer's prompt and seed."""

    method: str
    makes: tuple[str, ...]
    given: tuple[Given, ...] = ()

    def method_row(self) -> Method:
        """The row of the method table."""
        return find_method(self.method)


@dataclass(frozen=True)
class Chain:
    """Steps that make foreground, background and blended picture, so far as the user does not give them.

    `name` is the same for all bases; `id` and `label` are among those of the methods what a method's own are. Of a
    base's chains of one name the first is the usual one: the others have other methods for the same steps.
    """

    id: str
    name: str
    label: str
    title: str
    base: str
    steps: tuple[Step, ...]

    @property
    def makes(self) -> tuple[str, ...]:
        """All frames that its steps make, in the order in which they are made."""
        return tuple(frame for step in self.steps for frame in step.makes)

    @property
    def images(self) -> tuple[str, ...]:
        """The pictures that the user must give."""
        named = (given.frame for step in self.steps for given in step.given if given.step is None)
        return tuple(dict.fromkeys(named))

    @property
    def mode(self) -> str:
        """The mode that it belongs to, as a method does."""
        return self.name

    @property
    def frames(self) -> tuple[str, ...]:
        """What it gives, as a method's frames."""
        return self.makes

    @property
    def extra_prompts(self) -> tuple[str, ...]:
        """The frames that may have a prompt of their own, as a method's."""
        return self.makes

    @property
    def transparent_frames(self) -> int:
        """How many of its frames come with alpha."""
        return sum(map(self.transparent, self.makes))

    @property
    def methods(self) -> tuple[Method, ...]:
        """The methods of its steps."""
        return tuple(step.method_row() for step in self.steps)

    @property
    def stems(self) -> tuple[str, ...]:
        """File stems of the layer files that all its steps need, each once."""
        methods = self.methods
        decoder = [method.decoder for method in methods if method.transparent_frames]
        return tuple(dict.fromkeys([*(method.weights for method in methods), *decoder]))

    def transparent(self, frame: str) -> bool:
        """Whether a frame that a step makes comes with alpha."""
        methods = [step.method_row() for step in self.steps if frame in step.makes]
        return any(method.is_transparent(method.frames.index(frame)) for method in methods)


def _one_step(base: str, name: str, method: str) -> Chain:
    """A chain of the one method that makes the whole set."""
    row = find_method(method)
    given = tuple(Given(frame) for frame in row.images)
    return Chain(row.id, name, row.label, row.title, base, (Step(row.id, row.frames, given),))


_FROM_FOREGROUND = (
    Step("xl_fg2blend", (BLENDED,), (Given(FOREGROUND, 0),)),
    Step("xl_fgblend2bg", (BACKGROUND,), (Given(FOREGROUND, 0), Given(BLENDED, 1))),
)
CHAIN_ROWS = (
    Chain(
        id="xl_joint",
        name="joint",
        label="(SDXL) Generate Everything Together (3 steps)",
        title="Foreground, then blended, then background",
        base="sdxl",
        steps=(Step("xl_fg_attn", (FOREGROUND,)), *_FROM_FOREGROUND),
    ),
    Chain(
        id="xl_joint_conv",
        name="joint",
        label="(SDXL) Generate Everything Together (3 steps, Conv Injection)",
        title="Foreground (convolution), then blended, then background",
        base="sdxl",
        steps=(Step("xl_fg_conv", (FOREGROUND,)), *_FROM_FOREGROUND),
    ),
    Chain(
        id="xl_fg2bg",
        name="from-foreground",
        label="(SDXL) From Foreground to Background (2 steps)",
        title="Foreground to blended, then background",
        base="sdxl",
        steps=(
            Step("xl_fg2blend", (BLENDED,), (Given(FOREGROUND),)),
            Step("xl_fgblend2bg", (BACKGROUND,), (Given(FOREGROUND), Given(BLENDED, 0))),
        ),
    ),
    Chain(
        id="xl_bg2fg",
        name="from-background",
        label="(SDXL) From Background to Foreground (2 steps)",
        title="Background to blended, then foreground",
        base="sdxl",
        steps=(
            Step("xl_bg2blend", (BLENDED,), (Given(BACKGROUND),)),
            Step("xl_bgblend2fg", (FOREGROUND,), (Given(BACKGROUND), Given(BLENDED, 0))),
        ),
    ),
    *(
        _one_step(base, name, f"{base}_{method}")
        for base in ("sd15", "demo")
        for name, method in (("joint", "joint"), ("from-foreground", "fg2bg"), ("from-background", "bg2fg"))
    ),
)
CHAINS = {chain.id: chain for chain in CHAIN_ROWS}
CHAIN_NAMES = tuple(dict.fromkeys(chain.name for chain in CHAIN_ROWS))


@dataclass(frozen=True)
class Wishes:
    """What a user gives for a set: prompts and seeds for all its layers and for some, and names of pictures given.

    A layer's prompt stands before the prompt of all. A layer's seed stands for that of the set in this layer alone; of
    -1 or none it is that of the set.
    """

    prompt: str = ""
    seed: int = 0
    given: Collection[str] = ()
    prompts: Mapping[str, str] = field(default_factory=dict)
    seeds: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class PlannedStep:
    """A step with all that its run needs: `prompts` and `seeds`, as users read them, one a frame, for the first set."""

    number: int
    step: Step
    method: Method
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]

    @property
    def given(self) -> dict[str, int | None]:
        """Which step made each picture that the method sees, in the order of the method; None is the user."""
        return {given.frame: given.step for given in self.step.given}

    def seeds_of(self, group: int) -> tuple[int, ...]:
        """The seeds that the step's frames draw from, for the set of this number, from 0.

        Frames that are made together draw from one each, so sets count on by as many.
        """
        count = len(self.seeds)
        return tuple(counted(seed, group * count + place) for place, seed in enumerate(self.seeds))


def chains_for(base: str | None = None) -> tuple[Chain, ...]:
    """The chains of a base, in table order; None stands for all."""
    return tuple(chain for chain in CHAIN_ROWS if base in (None, chain.base))


def is_chain(name: str) -> bool:
    """Whether a name is the id or label of a chain that no single method has."""
    return chain_named(name) is not None


def chain_named(name: str) -> Chain | None:
    """The chain of several steps, of whatever base, with this id or label; None for any other name."""
    rows = (row for row in CHAIN_ROWS if len(row.steps) > 1)
    return next((row for row in rows if _plain(name) in (_plain(row.id), _plain(row.label))), None)


def find_chain(base: str, name: str) -> Chain:
    """The chain of a base by its name, id or label; InputError lists the names, BaseMismatchError names the base."""
    if base not in BASES:
        raise InputError(f"base {base!r}", f"one of {', '.join(BASES)}", "choose one of these")
    wanted = _plain(name) if isinstance(name, str) else name
    named = [row for row in CHAIN_ROWS if wanted in (row.name, _plain(row.id), _plain(row.label))]
    if not named:
        raise InputError(f"chain {name!r}", f"one of {', '.join(CHAIN_NAMES)}", "choose one of these")
    fitting = [row for row in named if row.base == base]
    if not chains_for(base):
        having = ", ".join(BASES[name].title for name in dict.fromkeys(row.base for row in CHAIN_ROWS))
        raise BaseMismatchError(
            f"{BASES[base].title}, which has no chain", f"one of {having}", "load a checkpoint of one of these"
        )
    if not fitting:
        raise BaseMismatchError(
            f"{BASES[base].title} with chain {named[0].id}, which is made for {BASES[named[0].base].title}",
            f"a chain for {BASES[base].title}: {', '.join(row.name for row in chains_for(base))}",
            f"choose one of these, or load a checkpoint of {BASES[named[0].base].title}",
        )
    return fitting[0]


def chain_with(chain: Chain, method: str) -> Chain:
    """The chain, or that of its base and name, which has this method; InputError where none has."""
    alike = [row for row in CHAIN_ROWS if (row.base, row.name) == (chain.base, chain.name)]
    methods = {row.id: [step.method for step in row.steps] for row in [chain, *alike]}
    found = next((name for name, known in methods.items() if method in known), None)
    if found is None:
        known = ", ".join(dict.fromkeys(name for names in methods.values() for name in names))
        raise InputError(
            f"method {method!r} in chain {chain.id}", f"one of its methods: {known}", "choose one of these, or none"
        )
    return CHAINS[found]


def plan_chain(chain: Chain, wishes: Wishes) -> tuple[PlannedStep, ...]:
    """The steps of a chain with methods, prompts and seeds; a typed error for whatever cannot work."""
    check_given(chain, wishes.given)
    _check_layers("prompt", wishes.prompts)
    _check_layers("seed", wishes.seeds)
    check_seed("seed", wishes.seed, 0)
    for frame, seed in wishes.seeds.items():
        check_seed(f"{frame} seed", seed, SEED_LIKE_SET)
    return tuple(_planned(number, step, wishes) for number, step in enumerate(chain.steps))


def counted(seed: int, steps: int) -> int:
    """The seed so many steps on; behind the last one comes 0."""
    return (seed + steps) % (MAX_SEED + 1)


def layer_prompt(own: str, shared: str) -> str:
    """The prompt of a layer, "<its own>, <that of all layers>", where both say something."""
    return ", ".join(text for text in (own.strip(), shared.strip()) if text)


def check_given(chain: Chain, given: Collection[str]) -> None:
    """InputError unless every picture that the user must give is given."""
    refuse_missing(f"chain {chain.id}", chain.images, given, "chain joint, which needs none")


def check_seed(name: str, seed: int, least: int) -> None:
    """InputError unless a seed is a whole number from `least` to 2^32 - 1."""
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not least <= seed <= MAX_SEED:
        raise InputError(
            f"{name} {seed!r}"[:100], f"a whole number from {least} to {MAX_SEED}", f"choose {name} in that range"
        )


def _planned(number: int, step: Step, wishes: Wishes) -> PlannedStep:
    method = step.method_row()
    prompts = tuple(layer_prompt(wishes.prompts.get(frame, ""), wishes.prompt) for frame in method.frames)
    for frame, prompt in zip(method.frames, prompts, strict=True):
        if not prompt:
            raise InputError(
                f"no prompt for the {frame}", "a prompt for it, or one for all layers", "say what the picture shows"
            )
    own = {frame: wishes.seeds.get(frame, SEED_LIKE_SET) for frame in method.frames}
    told = [wishes.seed if own[frame] < 0 else own[frame] for frame in method.frames]
    return PlannedStep(number, step, method, prompts, tuple(map(int, told)))


def _check_layers(what: str, values: Mapping[str, object]) -> None:
    unknown = [name for name in values if name not in FRAMES]
    if unknown:
        raise InputError(f"a {what} for layer {unknown[0]!r}", f"one for {', '.join(FRAMES)}", "correct the name")
    wrong = [name for name, value in values.items() if what == "prompt" and not isinstance(value, str)]
    if wrong:
        raise InputError(f"{wrong[0]} prompt {values[wrong[0]]!r}"[:100], "a text", "write the prompt as a text")


def _plain(text: str) -> str:
    return "".join(text.casefold().split())
