"""Random and hostile API calls: never a silent wrong result, never an altered model, never an exception in a hook.

LAYERDIFFUSE_FUZZ sets the number of calls (the default keeps CI short), LAYERDIFFUSE_FUZZ_SEED the seed.
"""

from __future__ import annotations

import base64
import io
import os
import random

import numpy as np
import pytest
from fakes.running import Snapshot, plainly, positional, run, same_pictures
from PIL import Image

from lib_layerdiffuse.core.methods import METHODS, find_method
from lib_layerdiffuse.form.arguments import ARGUMENTS, parse_positional

CALLS = int(os.environ.get("LAYERDIFFUSE_FUZZ", "25"))
SEED = int(os.environ.get("LAYERDIFFUSE_FUZZ_SEED", "1"))
CHECK_EVERY = 8  # calls between comparisons of the whole model


def base64_of(image: Image.Image, form: str = "PNG") -> str:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def noise(size: tuple[int, int], mode: str, chance: random.Random) -> Image.Image:
    values = np.random.default_rng(chance.randrange(2**31)).integers(0, 256, (*size[::-1], len(mode)), dtype=np.uint8)
    return Image.fromarray(values.squeeze())


def some_image(chance: random.Random):
    """A picture that can be used, in one of the forms that callers send."""
    size = chance.choice([(1, 1), (7, 300), (64, 64), (33, 47), (2000, 3)])
    image = noise(size, chance.choice(["RGBA", "RGB"]), chance)
    return chance.choice([image, base64_of(image), "data:image/png;base64," + base64_of(image), np.asarray(image)])


STEMS = ["layer_sd15_transparent_attn", "layer_sd15_vae_transparent_decoder", "vae_transparent_encoder"]
HOSTILE = (
    None, "", " ", "\0", "nan", "inf", "-inf", float("nan"), float("inf"), -1, 10**30, 2**64, 1e-320, True, False,
    [], {}, [[]], {"image": None}, {"image": "x"}, b"", b"\x89PNG", "A" * 10_000, "ünïcödé 🐱 \u202e", "'; DROP TABLE",
    "<script>alert(1)</script>", "../../etc/passwd", "file:///etc/passwd", "http://localhost/x.png", "data:,", object(),
    np.zeros((0, 0, 3), np.uint8), np.zeros((4, 4, 7), np.uint8), np.zeros((4, 4), np.float64), Image.new("1", (3, 3)),
)  # fmt: skip


def sensible(name: str, chance: random.Random):
    """A value that the argument may have."""
    argument = next(argument for argument in ARGUMENTS if argument.name == name)
    return {
        "switch": lambda: chance.choice([True, False, 1, "on", "false"]),
        "method": lambda: chance.choice([m.id for m in METHODS] + [m.label for m in METHODS] + [""]),
        "number": lambda: chance.choice([argument.minimum, argument.maximum, chance.random(), "0.5"]),
        "choice": lambda: chance.choice(argument.choices),
        "seed": lambda: chance.choice([-1, 0, 7, "12", 2**32 - 1]),
        "text": lambda: chance.choice(["", "a cat", "ünïcödé 🐱", "a AND b", "(((", "<lora:none:1>", "x" * 2000]),
        "image": lambda: some_image(chance),
        "file": lambda: chance.choice(["", "Automatic", None, "gone [0123456789]"] * 4 + ["../gone", *STEMS]),
    }[argument.kind]()


def some_arguments(chance: random.Random) -> list:
    """Arguments of one call: by place or by name, mostly sensible, some hostile, some missing or unknown."""
    wild = chance.choice([0.0, 0.05, 0.3])
    values = {
        argument.name: chance.choice(HOSTILE) if chance.random() < wild else sensible(argument.name, chance)
        for argument in ARGUMENTS
    }
    values["enabled"] = chance.choice([True, True, True, values["enabled"]])
    if chance.random() < 0.5:
        return list(values.values())
    names = chance.sample(list(values), chance.randrange(1, len(values) + 1))
    mapping = {name: values[name] for name in names}
    if chance.random() < 0.1:
        mapping[chance.choice(["unknown", "", "layerdiffusion_weight", "Weight"])] = chance.choice(HOSTILE)
    return [mapping, *positional(enabled=False)[1:]]


def some_fields(chance: random.Random) -> dict:
    """Fields of the job itself."""
    fields = {"steps": 1, "batch_size": chance.choice([1, 1, 2]), "n_iter": chance.choice([1, 1, 1, 2])}
    if chance.random() < 0.3:
        fields["init_images"] = [noise((40, 24), chance.choice(["RGBA", "RGB"]), chance)]
    elif chance.random() < 0.3:
        fields |= {"enable_hr": True, "hr_upscaler": chance.choice(["Latent", "Lanczos"]), "hr_scale": 1.5}
        if chance.random() < 0.3:  # the gallery's upscale button
            fields |= {"batch_size": 1, "n_iter": 1, "firstpass_image": noise((64, 64), "RGB", chance)}
    return fields


def check(outcome, arguments: list, told_to_run: bool) -> None:
    """Either a plain job, or an error and no picture, or pictures as the method's row says."""
    layered = "layerdiffusion_method" in outcome.parameters
    if outcome.error is not None:
        assert outcome.pictures == [], arguments
        assert "got " in outcome.error and "What to do" in outcome.error, outcome.error
        assert "inside LayerDiffuse" not in outcome.error, outcome.error
    elif layered:
        method = find_method(outcome.parameters["layerdiffusion_method"])
        wanted = ["RGBA" if method.is_transparent(place) else "RGB" for place in range(outcome.processed.batch_size)]
        assert outcome.modes[: len(wanted)] == wanted, arguments
        assert outcome.processed.batch_size % len(method.frames) == 0
    else:
        assert not told_to_run, arguments
        assert set(outcome.modes) == {"RGB"}


def is_told_to_run(arguments: list) -> bool:
    """Whether the call asks for layers, as far as its arguments can be understood."""
    if isinstance(arguments[0], dict):
        return arguments[0].get("enabled", True) is True
    return arguments[0] is True


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_random_and_hostile_calls(make_webui, flavour, base):
    webui = make_webui(flavour, base)
    before, state = plainly(webui), Snapshot.of(webui)
    chance = random.Random(f"{SEED}-{flavour}-{base}")
    for number in range(CALLS):
        arguments = some_arguments(chance)
        outcome = run(webui, arguments, **some_fields(chance))
        assert not webui.errors, (number, arguments, webui.errors)
        check(outcome, arguments, is_told_to_run(arguments))
        if number % CHECK_EVERY == 0:
            run(webui, steps=1)  # a WebUI leaves a prompt's Lora in the model until a job without it
            state.check(webui)
    after = run(webui, steps=1)
    state.check(webui)
    assert same_pictures(after, before) and not after.parameters


def test_the_table_refuses_what_it_cannot_take_with_a_typed_error():
    chance = random.Random(SEED)
    for _ in range(500):
        try:
            parse_positional(some_arguments(chance)[: len(ARGUMENTS)])
        except ValueError as error:  # InputError is one
            assert "What to do" in str(error)
