"""The one table of arguments from which the user interface, the infotext and the API of every host follow.

The first twelve stand in the positional order that scripts written for the Forge extension send.
No gradio and no torch here: this is data and its parsing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from PIL import Image

from ..core.bases import BASES
from ..core.errors import InputError
from ..core.methods import BACKGROUND, BLENDED, FOREGROUND, choose_method
from ..core.picture.resize_modes import ResizeMode
from ..sets.chains import MAX_SEED, SEED_LIKE_SET, Chain
from .frames import FRAMES, Frame
from .values import PARSERS
from .ways import Way, find_way

INFOTEXT_PREFIX = "layerdiffusion_"


def always(method: Way) -> bool:
    """The rule of arguments that every method uses."""
    return True


def needs_image(frame: str) -> Callable[[Way], bool]:
    """Rule: the method's control image or one of its concatenated latents shows this frame."""
    return lambda method: frame in method.images


def needs_any_image(method: Way) -> bool:
    """Rule: the method works on at least one given picture."""
    return bool(method.images)


def needs_prompt(frame: str) -> Callable[[Way], bool]:
    """Rule: this frame of the method may have a prompt of its own."""
    return lambda method: frame in method.extra_prompts


def needs_seed(frame: str) -> Callable[[Way], bool]:
    """Rule: this frame is one of several that are made."""
    return lambda method: len(method.frames) > 1 and frame in method.frames


def is_one_method(method: Way) -> bool:
    """Rule: all of it comes from one file."""
    return not isinstance(method, Chain)


def votes_on_transparency(method: Way) -> bool:
    """Rule: the method gives pictures with transparency, by a decoder that gains from more than one orientation."""
    return method.transparent_frames > 0 and BASES[method.base].orientations > 1


def gives_transparency(method: Way) -> bool:
    """Rule: some picture of the method goes through the transparency codec."""
    return method.transparent_frames > 0


@dataclass(frozen=True)
class Argument:
    """One row: how an argument is called, shown, parsed and when it matters."""

    label: str
    kind: str
    help: str = ""
    choices: tuple[Any, ...] = ()
    titles: tuple[str, ...] = ()  # what the choices are called on a page; () for the choices themselves
    minimum: float = 0.0
    maximum: float = 1.0
    step: float = 0.01
    needed: Callable[[Way], bool] = always
    name: str = ""
    default: Any = None

    @property
    def infotext_key(self) -> str:
        """Key in a picture's generation parameters; letters and underscores only, as the WebUIs demand."""
        return INFOTEXT_PREFIX + self.name

    def title_of(self, value: Any) -> str:
        """What a page shows, and sends, for one of the choices."""
        return str((self.titles or self.choices)[self.choices.index(value)])

    def parse(self, raw: Any) -> Any:
        """Value of this argument from what a UI, an API call or an infotext sent; InputError names the argument."""
        return PARSERS[self.kind](self, raw)


def row(default: Any, **columns: Any) -> Any:
    """A dataclass field that carries its table row."""
    return field(default=default, metadata={"argument": Argument(default=default, **columns)})


def image_row(frame: Frame) -> Any:
    help_text = "A picture with transparency keeps it; it is laid on mid grey for the network."
    return row(None, label=frame.title, kind="image", needed=needs_image(frame.name), help=help_text)


def prompt_row(frame: Frame) -> Any:
    help_text = "Goes before the main prompt."
    return row("", label=f"{frame.title} prompt", kind="text", needed=needs_prompt(frame.name), help=help_text)


def seed_row(frame: Frame) -> Any:
    limits = {"minimum": SEED_LIKE_SET, "maximum": MAX_SEED, "step": 1}
    needed, help_text = needs_seed(frame.name), "-1: that of all layers."
    return row(SEED_LIKE_SET, label=f"{frame.title} seed", kind="seed", needed=needed, help=help_text, **limits)


def file_row(label: str, needed: Callable[[Way], bool] = always) -> Any:
    return row("", label=label, kind="file", needed=needed, help="Automatic: the usual one.")


@dataclass(frozen=True)
class LayerArguments:
    """Values of all arguments of one run, in positional order; images are PIL RGBA or None."""

    enabled: bool = row(False, label="Enable", kind="switch", help="Off: an ordinary opaque picture.")
    method: str = row("", label="Method", kind="method", help="Empty: the single-picture method of the loaded base.")
    weight: float = row(1.0, label="Weight", kind="number", maximum=2.0, help="1: as published, 0: no effect.")
    ending_step: float = row(1.0, label="Stop At", kind="number", help="Share of the steps it works for.")
    fg_image: Image.Image | None = image_row(FRAMES[FOREGROUND])
    bg_image: Image.Image | None = image_row(FRAMES[BACKGROUND])
    blend_image: Image.Image | None = image_row(FRAMES[BLENDED])
    resize_mode: str = row(
        ResizeMode.CROP.value,
        label="Resize Mode",
        kind="choice",
        choices=tuple(mode.value for mode in ResizeMode),
        needed=needs_any_image,
        help="How given images are brought to the picture's size.",
    )
    output_origin: bool = row(
        False,
        label="Also keep the opaque picture",
        kind="switch",
        help="The picture before its transparency is decoded.",
    )
    fg_additional_prompt: str = prompt_row(FRAMES[FOREGROUND])
    bg_additional_prompt: str = prompt_row(FRAMES[BACKGROUND])
    blend_additional_prompt: str = prompt_row(FRAMES[BLENDED])
    passes: int = row(
        8,
        label="Transparency quality",
        kind="choice",
        choices=(1, 2, 4, 8),
        titles=("Fastest", "Fast", "Balanced", "Best (as published)"),
        needed=votes_on_transparency,
        help="Decoder passes that are combined: 1, 2, 4 or 8.",
    )
    checkerboard: bool = row(
        True,
        label="Checkerboard preview",
        kind="switch",
        help="Shows the pictures on a checkerboard; files stay transparent.",
    )
    method_file: str = file_row("Method file", is_one_method)
    decoder_file: str = file_row("Decoder file", gives_transparency)
    encoder_file: str = file_row("Encoder file", gives_transparency)
    fg_seed: int = seed_row(FRAMES[FOREGROUND])
    bg_seed: int = seed_row(FRAMES[BACKGROUND])
    blend_seed: int = seed_row(FRAMES[BLENDED])

    @property
    def method_row(self) -> Way | None:
        """The chosen row of the method table, or the chain; None while the method is left to the loaded base."""
        return find_way(self.method) if self.method else None

    def with_method_for(self, base: str) -> LayerArguments:
        """The same values with an empty method replaced by the single-picture method of `base`."""
        return self if self.method else replace(self, method=choose_method(base).id)

    def check(self) -> None:
        """Refuses an enabled run whose method lacks an image (InputError naming all that are missing)."""
        method = self.method_row
        if not self.enabled or method is None:
            return
        wanted = [argument for argument in visible_arguments(method) if argument.kind == "image"]
        missing = [argument for argument in wanted if getattr(self, argument.name) is None]
        if missing:
            got, expected = ([f"{one.name} ({one.label})" for one in rows] for rows in (missing, wanted))
            raise InputError(
                f"no {' and no '.join(got)}",
                f'{" and ".join(expected)} for "{method.title}"',
                "give the image, or choose another method",
            )


ARGUMENTS: tuple[Argument, ...] = tuple(
    replace(entry.metadata["argument"], name=entry.name) for entry in fields(LayerArguments)
)
BY_NAME: dict[str, Argument] = {argument.name: argument for argument in ARGUMENTS}


def visible_arguments(method: Way) -> tuple[Argument, ...]:
    """The arguments that a method uses, in positional order."""
    return tuple(argument for argument in ARGUMENTS if argument.needed(method))


def parse_positional(values: Sequence[Any]) -> LayerArguments:
    """Values from a list in positional order, or from a list holding one mapping; missing ones take their defaults.

    InputError for more of them, or what an argument cannot take.
    """
    if len(values) == 1 and isinstance(values[0], Mapping):
        return parse_mapping(values[0])
    if len(values) > len(ARGUMENTS):
        order = ", ".join(BY_NAME)
        raise InputError(f"{len(values)} arguments", f"at most {len(ARGUMENTS)}: {order}", "send one mapping of names")
    return parse_mapping({argument.name: value for argument, value in zip(ARGUMENTS, values, strict=False)})


def parse_mapping(values: Mapping[str, Any]) -> LayerArguments:
    """Values from names (`weight`, or as in an infotext `layerdiffusion_weight`); others take their defaults.

    InputError for other names, or what an argument cannot take.
    """
    named = {str(key).removeprefix(INFOTEXT_PREFIX): value for key, value in values.items()}
    unknown = sorted(set(named) - set(BY_NAME))
    if unknown:
        raise InputError(f"the unknown argument {', '.join(unknown)}", ", ".join(BY_NAME), "correct the name")
    return LayerArguments(**{name: BY_NAME[name].parse(value) for name, value in named.items()})


def to_infotext(arguments: LayerArguments) -> dict[str, Any]:
    """Generation parameters of an enabled run, method by the label users know; images do not travel in a text."""
    if not arguments.enabled:
        return {}
    method = arguments.method_row
    shown = ARGUMENTS if method is None else visible_arguments(method)
    values = {argument: getattr(arguments, argument.name) for argument in shown if argument.kind != "image"}
    if method is not None:
        values[BY_NAME["method"]] = method.label
    required = ("enabled", "method", "weight", "ending_step")
    return {
        argument.infotext_key: value
        for argument, value in values.items()
        if argument.name in required or value != argument.default
    }


def from_infotext(parameters: Mapping[str, Any]) -> LayerArguments:
    """Values from generation parameters of ours or of older pictures; foreign keys and image marks are passed over."""
    known = {
        argument.name: parameters[argument.infotext_key]
        for argument in ARGUMENTS
        if argument.kind != "image" and argument.infotext_key in parameters
    }
    return parse_mapping(known)


def describe() -> list[dict[str, Any]]:
    """The table as plain data, for an API's documentation: name, label, kind, default, choices, range and help."""
    return [{key: value for key, value in asdict(argument).items() if key != "needed"} for argument in ARGUMENTS]
