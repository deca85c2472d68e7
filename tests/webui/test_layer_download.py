"""The last sets of a page, and the files that its buttons fetch."""

from __future__ import annotations

import gc
import io
import json
import zipfile
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from fakes.running import positional, run
from PIL import Image

from lib_layerdiffuse.core.methods import find_method
from lib_layerdiffuse.sets.chains import FRAMES
from lib_layerdiffuse.sets.gathering import gathered
from lib_layerdiffuse.sets.reading import read_set
from lib_layerdiffuse.webui.saving import last_sets
from lib_layerdiffuse.webui.saving.layer_download import ADDRESS, NOTES

fastapi = pytest.importorskip("fastapi", reason="every WebUI has it")
testclient = pytest.importorskip("fastapi.testclient", exc_type=ImportError)


@pytest.fixture
def client(a1111, monkeypatch):
    # the script's class keeps them, so that tests before this one may have left some
    monkeypatch.setattr("lib_layerdiffuse.webui.script.LayerDiffuseScript.sets", last_sets.LastSets())
    app = fastapi.FastAPI()
    a1111.callbacks.fire("app_started", None, app)
    return testclient.TestClient(app)


def fetched(client, visitor: str = "me", **wanted):
    return client.get(ADDRESS, params={"visitor": visitor, "tab": "txt2img", **wanted})


def page(method: str, visitor: str = "me", **arguments):
    """The values of a page."""
    return [*positional(method=method, **arguments), visitor]


def same(one: Image.Image, other: Image.Image) -> bool:
    return np.array_equal(np.asarray(one.convert("RGBA")), np.asarray(other.convert("RGBA")))


@pytest.mark.parametrize("kind", ["ora", "zip", "psd"])
def test_the_set_of_the_last_job_is_a_file(client, a1111, kind) -> None:
    if kind == "psd":
        pytest.importorskip("psd_tools")
    outcome = run(a1111, page("sd15_joint"), batch_size=3, steps=1, prompt="a cat, 赤い", seed=7)
    answer = fetched(client, kind=kind)
    assert answer.status_code == 200 and f".{kind}" in answer.headers["Content-Disposition"]
    assert "a-cat-" in unquote(answer.headers["Content-Disposition"])
    made = read_set(answer.content, f"a.{kind}")
    assert [layer.name for layer in made] == ["Background", "Foreground"]
    for found, wanted in zip(
        (made.layers[1].picture, made.layers[0].picture, made.blended), outcome.pictures, strict=True
    ):
        assert same(found, wanted)
    assert kind != "zip" or ([layer.seed for layer in made] == [7, 7] and "a cat" in made.layers[0].prompt)


def test_layers_tell_what_they_have_of_their_own_as_their_files_do(client, a1111) -> None:
    own = {"bg_additional_prompt": "rain, fog", "bg_seed": 8, "fg_seed": 9}
    outcome = run(a1111, page("sd15_joint", **own), batch_size=3, steps=1, prompt="a cat", seed=7)
    answer = fetched(client, kind="zip")
    made = read_set(answer.content)
    told = {layer.role: (layer.prompt, layer.seed) for layer in made}
    assert "a-cat-7.zip" in answer.headers["Content-Disposition"], "the whole set's"
    assert told == {"background": ("rain, fog, a cat", 8), "foreground": ("a cat", 9)}
    folder = Path(outcome.p.outpath_samples)
    (found,) = gathered([folder])
    assert {layer.role: (layer.prompt, layer.seed) for layer in found.read()} == told


def test_what_was_given_is_a_layer_too(client, a1111) -> None:
    given = Image.new("RGBA", (40, 20), (250, 0, 0, 128))
    run(a1111, page("sd15_fg2bg", fg_image=given), batch_size=2, steps=1, width=64, height=64)
    made = read_set(fetched(client, kind="zip").content)
    assert [layer.role for layer in made] == ["background", "foreground"]
    assert made.layers[1].picture.size == made.size and made.layers[1].picture.getpixel((32, 32))[0] > 200


def test_the_set_of_a_chosen_picture_is_found_by_its_file(client, a1111) -> None:
    outcome = run(a1111, page("sd15_joint"), batch_size=6, steps=1)
    for place, image in enumerate(outcome.pictures):
        image.already_saved_as = f"/outputs/0000{place}-x.png"
    for name, first in (("00001-x.png", 0), ("00005-x.png", 3), ("", 3), ("other.png", 3)):
        made = read_set(fetched(client, kind="zip", picture=name).content)
        assert same(made.layers[1].picture, outcome.pictures[first])


def test_each_page_and_tab_has_its_own(client, a1111) -> None:
    run(a1111, page("sd15_fg"), steps=1)
    run(a1111, page("sd15_fg", "you"), steps=1, seed=5)
    run(a1111, {"method": "sd15_fg"}, steps=1)  # by the API
    mine, yours = (fetched(client, visitor, kind="ora") for visitor in ("me", "you"))
    assert mine.status_code == yours.status_code == 200 and mine.content != yours.content
    for visitor, tab in (("me", "img2img"), ("nobody", "txt2img"), ("", "txt2img")):
        answer = fetched(client, visitor, tab=tab)
        assert answer.status_code == 422 and answer.json()["what_to_do"].startswith("generate with")
    assert "one of psd" in fetched(client, kind="gif").json()["expected"]


def test_recomposite_and_sprites(client, a1111) -> None:
    run(a1111, page("sd15_joint"), batch_size=3, steps=1)
    answer = fetched(client, kind="ora", recomposite=True)
    assert "dB" in unquote(answer.headers[NOTES]) or "exactly" in unquote(answer.headers[NOTES])
    with zipfile.ZipFile(io.BytesIO(fetched(client, kind="sprites").content)) as archive:
        assert len(json.loads(archive.read("sheet.json"))["frames"]) == 2


def test_what_is_kept_is_bounded(client, a1111, monkeypatch) -> None:
    monkeypatch.setattr(last_sets, "MOST_PIXELS", 3 * 64 * 64)
    monkeypatch.setattr(last_sets, "VISITORS", 2)
    kept = a1111.runners[False].ours.sets
    for visitor in ("a", "b", "c"):
        run(a1111, page("sd15_joint", visitor), batch_size=6, steps=1, width=64, height=64)
    assert list(kept._made) == [("b", "txt2img"), ("c", "txt2img")]
    assert all(len(made.sets) == 1 for made in kept._made.values())
    gc.collect()
    assert all(made.owner() is None for made in kept._made.values())  # no job is kept
    assert find_method("sd15_joint").frames == tuple(next(iter(kept._made["c", "txt2img"].sets.values())))


def test_a_failed_job_leaves_the_last_set(client, a1111) -> None:
    run(a1111, page("sd15_fg"), steps=1)
    before = fetched(client, kind="ora").content
    assert run(a1111, page("sd15_fg2bg"), steps=1).error
    assert fetched(client, kind="ora").content == before


def test_all_steps_of_a_chain_make_one_set(sdxl) -> None:
    outcome = run(sdxl, page("xl_joint"), batch_size=2, steps=1)
    kept = sdxl.runners[False].ours.sets._made["me", "txt2img"]
    assert [list(pieces) for pieces in kept.sets.values()] == [["foreground", "blended", "background"]] * 2
    first = [outcome.pictures[place] for place in range(3)]
    made = kept.layer_set("")
    assert [layer.role for layer in made] == ["background", "foreground"] and made.blended is not None
    pieces = kept.sets[0]
    assert all(same(pieces[frame].picture, one) for frame, one in zip(FRAMES, first, strict=True))
