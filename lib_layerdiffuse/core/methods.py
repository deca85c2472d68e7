"""The layer methods as rows of a table: what each needs, gives and is called, and the rules that follow from a row."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from .bases import ALPHAVAE, BASES, SD_HUB, CodecFiles, Hub
from .errors import BaseMismatchError, InputError
from .modes import MODES

FOREGROUND, BACKGROUND, BLENDED = "foreground", "background", "blended"
OFFSETS, ATTENTION_SHARING, LORA = "offsets", "attention sharing", "LoRA"


@dataclass(frozen=True)
class Method:
    """One way to make layers; `transparent_frames` counts how many of its frames, from the first on, decode to RGBA."""

    id: str
    label: str  # what users of the Forge extension know; old infotexts and API calls carry it
    title: str
    mode: str
    base: str
    weights: str
    kind: str
    frames: tuple[str, ...]
    transparent_frames: int
    control: str | None = None
    concat: tuple[str, ...] = ()
    own_codec: CodecFiles | None = None  # where it is not that of the base
    given: bool = False  # its files are never fetched: nothing is known of their licence

    @property
    def codec(self) -> CodecFiles:
        """What its transparent frames are encoded and decoded by."""
        return self.own_codec or BASES[self.base].codec

    @property
    def images(self) -> tuple[str, ...]:
        """The pictures that the user must give, in the order in which the UNet sees them."""
        return (self.control, *self.concat) if self.control else self.concat

    @property
    def extra_prompts(self) -> tuple[str, ...]:
        """The frames that may have a prompt of their own."""
        return self.frames if len(self.frames) > 1 else ()

    @property
    def input_channels(self) -> int:
        """Input channels of the UNet with the concat latents."""
        return BASES[self.base].latents.channels * (1 + len(self.concat))

    @property
    def mode_title(self) -> str:
        """The mode as a user reads it."""
        return MODES[self.mode].title

    @property
    def decoder(self) -> str:
        """File stem of the transparency decoder."""
        return self.codec.decoder

    @property
    def encoder(self) -> str:
        """File stem of the transparency encoder."""
        return self.codec.encoder

    def frame_of(self, image: int) -> str:
        """The frame name of the image at this place in the batch."""
        return self.frames[image % len(self.frames)]

    def group_of(self, image: int) -> int:
        """The result that the image at this place in the batch belongs to."""
        return image // len(self.frames)

    def is_transparent(self, image: int) -> bool:
        """Whether the image at this place in the batch goes through the transparency decoder."""
        return image % len(self.frames) < self.transparent_frames


METHODS: tuple[Method, ...] = (
    Method(
        id="sd15_fg",
        label="(SD1.5) Only Generate Transparent Image (Attention Injection)",
        title="Transparent image",
        mode="single",
        base="sd15",
        weights="layer_sd15_transparent_attn",
        kind=ATTENTION_SHARING,
        frames=(FOREGROUND,),
        transparent_frames=1,
    ),
    Method(
        id="sd15_joint",
        label="(SD1.5) Generate Everything Together (need batch size 3)",
        title="Foreground, background and blended together",
        mode="joint",
        base="sd15",
        weights="layer_sd15_joint",
        kind=ATTENTION_SHARING,
        frames=(FOREGROUND, BACKGROUND, BLENDED),
        transparent_frames=1,
    ),
    Method(
        id="sd15_fg2bg",
        label="(SD1.5) From Foreground to Background (need batch size 2)",
        title="Foreground to background and blended",
        mode="from-foreground",
        base="sd15",
        weights="layer_sd15_fg2bg",
        kind=ATTENTION_SHARING,
        frames=(BACKGROUND, BLENDED),
        transparent_frames=0,
        control=FOREGROUND,
    ),
    Method(
        id="sd15_bg2fg",
        label="(SD1.5) From Background to Foreground (need batch size 2)",
        title="Background to foreground and blended",
        mode="from-background",
        base="sd15",
        weights="layer_sd15_bg2fg",
        kind=ATTENTION_SHARING,
        frames=(FOREGROUND, BLENDED),
        transparent_frames=1,
        control=BACKGROUND,
    ),
    Method(
        id="xl_fg_attn",
        label="(SDXL) Only Generate Transparent Image (Attention Injection)",
        title="Transparent image (attention)",
        mode="single",
        base="sdxl",
        weights="layer_xl_transparent_attn",
        kind=OFFSETS,
        frames=(FOREGROUND,),
        transparent_frames=1,
    ),
    Method(
        id="xl_fg_conv",
        label="(SDXL) Only Generate Transparent Image (Conv Injection)",
        title="Transparent image (convolution)",
        mode="single",
        base="sdxl",
        weights="layer_xl_transparent_conv",
        kind=OFFSETS,
        frames=(FOREGROUND,),
        transparent_frames=1,
    ),
    Method(
        id="xl_fg2blend",
        label="(SDXL) From Foreground to Blending",
        title="Foreground to blended",
        mode="from-foreground",
        base="sdxl",
        weights="layer_xl_fg2ble",
        kind=OFFSETS,
        frames=(BLENDED,),
        transparent_frames=0,
        concat=(FOREGROUND,),
    ),
    Method(
        id="xl_bg2blend",
        label="(SDXL) From Background to Blending",
        title="Background to blended",
        mode="from-background",
        base="sdxl",
        weights="layer_xl_bg2ble",
        kind=OFFSETS,
        frames=(BLENDED,),
        transparent_frames=0,
        concat=(BACKGROUND,),
    ),
    Method(
        id="xl_fgblend2bg",
        label="(SDXL) From Foreground and Blending to Background",
        title="Foreground and blended to background",
        mode="from-foreground",
        base="sdxl",
        weights="layer_xl_fgble2bg",
        kind=OFFSETS,
        frames=(BACKGROUND,),
        transparent_frames=0,
        concat=(FOREGROUND, BLENDED),
    ),
    Method(
        id="xl_bgblend2fg",
        label="(SDXL) From Background and Blending to Foreground",
        title="Background and blended to foreground",
        mode="from-background",
        base="sdxl",
        weights="layer_xl_bgble2fg",
        kind=OFFSETS,
        frames=(FOREGROUND,),
        transparent_frames=1,
        concat=(BACKGROUND, BLENDED),
    ),
    Method(
        id="flux_fg",
        label="(Flux) Only Generate Transparent Image",
        title="Transparent image",
        mode="single",
        base="flux",
        weights="layerlora",
        kind=LORA,
        frames=(FOREGROUND,),
        transparent_frames=1,
    ),
    Method(
        id="flux_alphavae",
        label="(Flux) Only Generate Transparent Image (AlphaVAE)",
        title="Transparent image (AlphaVAE)",
        mode="single",
        base="flux",
        weights="alphavae_flux_lora",
        kind=LORA,
        frames=(FOREGROUND,),
        transparent_frames=1,
        own_codec=ALPHAVAE,
        given=True,
    ),
    Method(
        id="demo_fg",
        label="(Demo) Only Generate Transparent Image",
        title="Transparent image",
        mode="single",
        base="demo",
        weights="layer_demo_transparent",
        kind=OFFSETS,
        frames=(FOREGROUND,),
        transparent_frames=1,
    ),
)
# the layers of the demo model are made as those of SD1.5, with files of their own
METHODS += tuple(
    replace(
        row,
        id=row.id.replace("sd15", "demo"),
        label=row.label.replace("SD1.5", "Demo"),
        base="demo",
        weights=row.weights.replace("sd15", "demo"),
    )
    for row in METHODS
    if row.base == "sd15" and len(row.frames) > 1
)


# the Forge extension's list: recipes for its API name a method by its place in it
NUMBERED = ("sd15_fg", "sd15_joint", "sd15_fg2bg", "sd15_bg2fg", "xl_fg_attn", "xl_fg_conv")
NUMBERED += ("xl_fg2blend", "xl_bg2blend", "xl_fgblend2bg", "xl_bgblend2fg")


def method_at(place: int) -> Method:
    """The method at this place, from 0, in the Forge extension's list; InputError lists the places."""
    if not 0 <= place < len(NUMBERED):
        places = ", ".join(f"{number} ({name})" for number, name in enumerate(NUMBERED))
        raise InputError(f"method {place}", f"a place in the list of methods: {places}", "choose one, or an id")
    return find_method(NUMBERED[place])


def find_method(name: str) -> Method:
    """The method with this id or label (case and spaces do not matter); InputError lists the valid ones."""
    wanted = _plain(name)
    for method in METHODS:
        if wanted in (_plain(method.id), _plain(method.label)):
            return method
    raise InputError(
        f"method {name!r}", f"one of {', '.join(method.id for method in METHODS)}", "choose one of these ids"
    )


def methods_for(base: str | None = None, mode: str | None = None) -> tuple[Method, ...]:
    """The methods of a base and a mode, in table order; None stands for all of them."""
    _check_known("base", base, BASES)
    _check_known("mode", mode, MODES)
    return tuple(m for m in METHODS if base in (None, m.base) and mode in (None, m.mode))


def choose_method(base: str, mode: str = "single", name: str | None = None) -> Method:
    """The named method, else the first of the mode, checked against the loaded base.

    BaseMismatchError where the base has no such method, InputError for a name that nobody has.
    """
    if name is not None:
        method = find_method(name)
        check_base(method, base)
        return method
    methods = methods_for(base, mode)
    if methods:
        return methods[0]
    others = sorted({BASES[method.base].title for method in methods_for(mode=mode)})
    raise BaseMismatchError(
        f"mode {MODES[mode].title!r} with {BASES[base].title}",
        f"a base model that has this mode: {', '.join(others)}",
        f"load such a checkpoint, or choose a mode of {BASES[base].title}: {', '.join(modes_of(base))}",
    )


def stems_of(base: str) -> dict[str, str]:
    """File stems of a base's layer files, and what each is for; not of those that are never fetched."""
    row = BASES[base]
    named = {method.weights: method.title for method in methods_for(base) if not method.given}
    if row.decoder == row.encoder:
        return {**named, row.decoder: "transparency decoder and encoder"}
    return {**named, row.decoder: "transparency decoder", row.encoder: "transparency encoder"}


def base_of_stem(stem: str) -> str | None:
    """The base of a published file, or one of the demo model's, by its name."""
    return next((row.base for row in METHODS if stem in (row.weights, row.decoder, row.encoder)), None)


def is_shipped(stem: str) -> bool:
    """Whether a layer file belongs to a base whose files come with this package."""
    return any(stem in stems_of(base.id) for base in BASES.values() if base.shipped)


def hub_of(stem: str) -> Hub | None:
    """Where a layer file may be fetched from; None where this program fetches it from nowhere."""
    base = base_of_stem(stem)
    if base is None:
        return SD_HUB
    return BASES[base].hub if stem in stems_of(base) else None


def modes_of(base: str) -> tuple[str, ...]:
    """The modes that a base has methods for."""
    return tuple(mode for mode in MODES if methods_for(base, mode))


def check_base(method: Method, base: str) -> None:
    """BaseMismatchError unless the method is made for this base."""
    _check_known("base", base, BASES)
    if method.base == base:
        return
    fitting = ", ".join(m.id for m in methods_for(base))
    raise BaseMismatchError(
        f"{BASES[base].title} with method {method.id}, which is made for {BASES[method.base].title}",
        f"a method for {BASES[base].title}: {fitting}",
        f"choose one of these, or load a checkpoint of {BASES[method.base].title}",
    )


def check_images(method: Method, given: Collection[str]) -> None:
    """InputError unless every picture that the method needs is given."""
    refuse_missing(f"method {method.id}", method.images, given, "a method that needs none")


def refuse_missing(what: str, needed: Sequence[str], given: Collection[str], other: str) -> None:
    """InputError where `what` needs pictures of frames that are not given; `other` needs none."""
    missing = [frame for frame in needed if frame not in given]
    if missing:
        raise InputError(
            f"no {' and no '.join(missing)} image for {what}",
            f"{' and '.join(needed)} image",
            f"give the {' and the '.join(missing)} image, or choose {other}",
        )


def round_up_batch(images: int, frames: int) -> int:
    """The smallest multiple of `frames` that holds `images`: a batch that the frames do not divide is only noise."""
    return max(1, math.ceil(images / frames)) * frames


def frame_prompts(method: Method, prompt: str, extra: Mapping[str, str]) -> tuple[str, ...]:
    """The conditional prompt of each frame: "<extra>, <prompt>" where the frame has a non-empty extra prompt."""
    extras = [extra.get(frame, "") if frame in method.extra_prompts else "" for frame in method.frames]
    return tuple(own_prompt(text, prompt) for text in extras)


def own_prompt(extra: str, prompt: str) -> str:
    """ "<extra>, <prompt>"; the prompt as it is where there is no extra one."""
    text = extra.strip()
    return f"{text}, {prompt}" if text else prompt


def _plain(text: str) -> str:
    return "".join(text.casefold().split())


def _check_known(what: str, name: str | None, known: Mapping[str, object]) -> None:
    if name is not None and name not in known:
        raise InputError(f"{what} {name!r}", f"one of {', '.join(known)}", "choose one of these")
