"""Chains by the API of a real WebUI: what single steps by hand give, as one job, however it ends."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cases import difference, for_bases, skip_without, skip_without_infotexts
from client import HIRES, SIZE, Result, as_base64, is_transparent, layered, picture, same
from PIL import Image
from server import changed_settings

from lib_layerdiffuse.form.frames import FRAMES as ROWS
from lib_layerdiffuse.form.ways import CHAINS
from lib_layerdiffuse.sets.chains import FRAMES, Chain

ROUNDING = 2.0  # levels of 255 by which another batch size may change a picture
EACH = pytest.mark.parametrize(("base", "chain"), [pytest.param(chain.base, chain, id=chain.id) for chain in CHAINS])
JOINT = next(chain for chain in CHAINS if chain.mode == "joint")
SLOW = {"steps": 30, "width": 128, "height": 128}  # so that there is time to interrupt it
SLOW_ENOUGH = {"steps": 4}  # of a full-size checkpoint
SETS, FEW_SETS = 30, 8  # in a row; of a full-size checkpoint
SETTLED, ALLOWED = 5, 40  # sets until memory has settled; megabytes that it may grow from then on


def given(chain: Chain) -> dict[str, str]:
    """Made-up pictures for what a chain needs, by argument name."""
    return {ROWS[frame].image: as_base64(picture(frame)) for frame in chain.images}


def chained(chain: Chain, **choices: Any) -> dict[str, Any]:
    """The API's field that switches a chain on."""
    return layered(chain.label, **given(chain), **choices)


def names(result: Result) -> list[str]:
    """What the API's info says that each picture is."""
    return result.info["extra_generation_params"]["layerdiffusion_layer"]


def seed_of(text: str) -> str:
    """The seed in an infotext."""
    return re.search(r"Seed: (\d+)", text)[1]


def check_sets(result: Result, chain: Chain, sets: int = 1, size: tuple[int, int] = (SIZE, SIZE)) -> None:
    """Whole sets, each layer named in info and text, with alpha where it has some, all of this size."""
    frames = [frame for frame in FRAMES if frame in chain.makes]
    assert result.error == "" and names(result) == frames * sets, result.info
    assert len(result.images) == len(result.infotexts) == sets * len(frames)
    for frame, image, text in zip(names(result), result.images, result.infotexts, strict=True):
        assert image.size == size and f"layerdiffusion_layer: {frame}" in text and chain.label in text
        assert is_transparent(image) if chain.transparent(frame) else image.mode == "RGB"


def by_hand(host: Any, chain: Chain, own: dict[str, dict[str, Any]] | None = None, **fields: Any) -> list[Image.Image]:
    """The layers of a chain by its single steps, each given the pictures of those before; `own` are fields of each."""
    made = {frame: picture(frame) for frame in chain.images}
    for step in chain.steps:
        (frame,) = step.makes
        images = {ROWS[one.frame].image: as_base64(made[one.frame]) for one in step.given}
        result = host.txt2img(**(fields | (own or {}).get(frame, {})), **layered(step.method, **images))
        assert result.error == ""
        made[frame] = result.images[0]
    return [made[frame] for frame in FRAMES if frame in chain.makes]


@EACH
def test_a_chain_gives_what_its_single_steps_give(host, chain):
    result = host.txt2img(**chained(chain))
    check_sets(result, chain)
    assert all(map(same, result.images, by_hand(host, chain)))


@EACH
def test_a_prompt_and_a_seed_for_each_layer(host, chain):
    seeds = {frame: 100 + place for place, frame in enumerate(chain.makes)}
    sent = {ROWS[frame].seed: seed for frame, seed in seeds.items()}
    sent |= {ROWS[frame].prompt: f"{frame} only" for frame in chain.makes}
    result = host.txt2img(**chained(chain, **sent))
    check_sets(result, chain)
    own = {frame: {"prompt": f"{frame} only, a red apple", "seed": seed} for frame, seed in seeds.items()}
    assert all(map(same, result.images, by_hand(host, chain, own)))
    assert all(text.startswith("a red apple\n") and seed_of(text) == "7" for text in result.infotexts)


@for_bases("sdxl")
def test_batches_are_sets_of_their_own(host):
    result = host.txt2img(batch_size=2, n_iter=2, **chained(JOINT, bg_seed=50))
    check_sets(result, JOINT, sets=4)
    for number in range(4):
        alone = host.txt2img(seed=7 + number, **chained(JOINT, bg_seed=50 + number))
        pairs = zip(result.images[3 * number : 3 * number + 3], alone.images, strict=True)
        assert max(difference(*pair) for pair in pairs) < ROUNDING
        assert alone.infotexts == result.infotexts[3 * number : 3 * number + 3]
    assert result.info["all_seeds"] == [7] * 3 + [8] * 3 + [9] * 3 + [10] * 3


@for_bases("sdxl")
def test_the_text_of_any_layer_brings_the_whole_set_again(host):
    skip_without_infotexts(host)
    made = host.txt2img(**chained(JOINT, fg_seed=3, bg_additional_prompt="a sandy beach", weight=0.8))
    check_sets(made, JOINT)
    for text in made.infotexts:
        again = host.decoded(host.client.post("/sdapi/v1/txt2img", {"infotext": text}))
        assert all(map(same, made.images, again.images)) and again.infotexts == made.infotexts


@for_bases("sdxl")
@pytest.mark.parametrize("upscaler", ["Latent", "Lanczos"])
def test_hires_fix_in_every_step(host, upscaler):
    skip_without(host, upscaler)
    fields = HIRES | {"hr_scale": 1.5, "hr_upscaler": upscaler, "hr_second_pass_steps": 2}
    result = host.txt2img(**fields, **chained(JOINT))
    check_sets(result, JOINT, size=(96, 96))
    assert all(map(same, result.images, by_hand(host, JOINT, **fields)))


@for_bases("sdxl")
def test_in_img2img_every_layer_starts_from_the_start_picture(host):
    check_sets(host.img2img(picture(), **chained(JOINT)), JOINT)


@for_bases("sdxl")
def test_a_lora_of_a_layer_is_for_that_layer_alone(host):
    without, result = (
        host.txt2img(**chained(JOINT, bg_additional_prompt=f"a beach{more}")) for more in ("", f" {host.lora}")
    )
    check_sets(result, JOINT)
    assert [same(*pair) for pair in zip(without.images, result.images, strict=True)] == [True, False, True]


# --- files


@for_bases("sdxl")
def test_each_layer_is_saved_once_and_the_grid_holds_all(host):
    before = set(host.webui.data.glob("output*/**/*.png"))
    with changed_settings(host.client, grid_save=True, return_grid=True):
        result = host.txt2img(save_images=True, **chained(JOINT))
    saved = set(host.webui.data.glob("output*/**/*.png")) - before
    layers = {path.stem.rpartition("-")[2]: path for path in saved if "grid" not in path.name}
    assert len(saved) == 4 and set(layers) == set(FRAMES) and result.info["index_of_first_image"] == 1
    assert result.images[0].size == (3 * SIZE, SIZE)
    for frame, image in zip(FRAMES, result.images[1:], strict=True):
        with Image.open(layers[frame]) as file:
            assert same(file, image) and f"layerdiffusion_layer: {frame}" in file.text["parameters"]


# --- how it ends


def slow(host: Any) -> dict[str, Any]:
    """Fields of a job in which there is time to do something."""
    return SLOW_ENOUGH if host.webui.full_size else SLOW


def while_at_work(host: Any, do: Callable[[], None], when: Callable[[dict[str, Any]], bool], **fields: Any) -> Result:
    """A chain, in which something is done once the WebUI's state is as wanted."""
    found: list[Result] = []
    job = threading.Thread(target=lambda: found.append(host.txt2img(**(slow(host) | fields), **chained(JOINT))))
    job.start()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not when(host.client.get("/sdapi/v1/progress")["state"]):
        time.sleep(0.05)
    do()
    job.join(600)
    assert not job.is_alive() and found
    return found[0]


def in_step(number: int) -> Callable[[dict[str, Any]], bool]:
    """Whether a WebUI is in the middle of this step, from 1."""
    return lambda state: state["job_count"] == 3 and state["job_no"] == number - 1 and state["sampling_step"] > 0


@for_bases("sdxl")
@pytest.mark.parametrize("way", ["interrupt", "stop_generating"])
@pytest.mark.parametrize("number", [1, 2])
def test_an_interrupt_leaves_what_is_done(host, number, way):
    paths = {"interrupt": "/sdapi/v1/interrupt", "stop_generating": "/layerdiffuse_witness/stop_generating"}
    result = while_at_work(host, lambda: host.client.post(paths[way], {}), in_step(number))
    left = ["foreground", "blended"][:number]
    assert result.error == "" and names(result) == left and len(result.images) == number
    assert "the user interrupted it" in result.info["extra_generation_params"]["layerdiffusion_note"]
    check_sets(host.txt2img(**chained(JOINT)), JOINT)


@for_bases("sdxl")
def test_a_skip_skips_a_layer_and_goes_on(host):
    result = while_at_work(host, lambda: host.client.post("/sdapi/v1/skip", {}), in_step(2))
    check_sets(result, JOINT, size=(slow(host).get("width", SIZE),) * 2)


@for_bases("sdxl")
def test_another_checkpoint_while_it_works_is_refused_and_the_layers_before_stay(host):
    title, other = host.webui.title(host.client, "sdxl"), host.other()
    choose = threading.Thread(target=lambda: host.client.post("/sdapi/v1/options", {"sd_model_checkpoint": other}))
    try:
        result = while_at_work(host, choose.start, in_step(1))
        choose.join(120)
    finally:
        host.client.post("/sdapi/v1/options", {"sd_model_checkpoint": title})
    assert names(result) == ["foreground"]
    for word in ("step 2 of 3", Path(other).stem, Path(title).stem, "while the set was being made", "What to do"):
        assert word in result.error


@for_bases("sdxl")
def test_a_broken_file_of_the_last_step_leaves_the_layers_before_it(host):
    path = host.layer_file(JOINT.steps[-1].method_row().weights)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    try:
        result = host.txt2img(**chained(JOINT))
    finally:
        path.write_bytes(whole)
    assert names(result) == ["foreground", "blended"] and "step 3 of 3 (background)" in result.error
    check_sets(host.txt2img(**chained(JOINT)), JOINT)


@for_bases("sd15")
def test_a_chain_on_another_base_is_refused(host):
    result = host.txt2img(**chained(JOINT))
    assert result.images == [] and "SD1.5" in result.error


@for_bases("sdxl")
def test_many_sets_in_a_row_leave_nothing(host):
    used, first = [], host.txt2img(steps=1, **chained(JOINT))
    for number in range(FEW_SETS if host.webui.full_size else SETS):
        result = host.txt2img(steps=1, **chained(JOINT))
        assert all(map(same, first.images, result.images))
        if number >= SETTLED:
            used.append(host.client.get("/sdapi/v1/memory")["ram"]["used"] / 2**20)
    assert used[-1] - used[0] < ALLOWED, used
