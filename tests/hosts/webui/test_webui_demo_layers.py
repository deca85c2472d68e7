"""The demo model's layer methods through the API: the same layers as the standalone program paints."""

from __future__ import annotations

import numpy as np
from cases import check_layers, difference, for_methods
from client import as_base64, layered, same
from demo_layers import JOB, LAYERED, SIDE, given, painted

from lib_layerdiffuse.core.methods import find_method

SEED = 21
ROUNDING = 1.0  # levels of 255, on the mean: the two compute in another order
ARGUMENTS = {"foreground": "fg_image", "background": "bg_image"}


def images_of(method) -> dict[str, str]:
    """What a method must be given, as the API takes it."""
    return {ARGUMENTS[name]: as_base64(image) for name, image in given(method).items()}


@for_methods(*LAYERED)
def test_the_standalone_program_paints_the_same_layers(host, method):
    result = host.txt2img(**JOB, seed=SEED, **layered(method, **images_of(method)))
    check_layers(result, method, size=(SIDE, SIDE))
    theirs = painted(method, SEED, host.webui.layer_models)
    found = [difference(one, other) for one, other in zip(result.images, theirs, strict=True)]
    assert max(found) < ROUNDING, dict(zip(method.frames, found, strict=True))


@for_methods(*(name for name in LAYERED if find_method(name).images))
def test_the_given_layer_is_what_the_others_are_painted_for(host, method):
    first = host.txt2img(**JOB, seed=SEED, **layered(method, **images_of(method))).images
    turned = {name: as_base64(image.rotate(90)) for name, image in given(method).items()}
    other = host.txt2img(**JOB, seed=SEED, **layered(method, **{ARGUMENTS[name]: turned[name] for name in turned}))
    assert not any(map(same, first, other.images))


@for_methods("demo_joint")
def test_the_layers_of_a_set_see_each_other(host, method):
    """At weight 0 each is the plain picture of its seed; the method changes them all."""
    joint = host.txt2img(**JOB, seed=SEED, **layered(method)).images
    apart = host.txt2img(**JOB, seed=SEED, **layered(method, weight=0)).images
    plain = host.txt2img(**JOB | {"batch_size": 3}, seed=SEED).images
    assert all(map(same, apart[1:], plain[1:])) and not any(map(same, joint[1:], plain[1:]))
    assert not np.array_equal(np.asarray(joint[0]), np.asarray(apart[0]))
