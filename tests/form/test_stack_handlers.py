"""What the Layers tab's buttons answer, without a page."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from PIL import Image

from lib_layerdiffuse.form.stack.handlers import StackHandlers
from lib_layerdiffuse.form.stack.place import StackPlace
from lib_layerdiffuse.sets.stack_store import StackStore

TOKEN = "0123456789abcdef" * 2


@pytest.fixture
def handlers(tmp_path) -> StackHandlers:
    """Those of a tab on a canvas of 64x64; an update is the mapping of what it says."""
    sizes = iter([(64, 64), *[(128, 128)] * 9])  # the model changes after the first visit
    place = StackPlace(StackStore(tmp_path / "stacks"), lambda *_: None, lambda: next(sizes))
    place.downloads = lambda token: tmp_path / token
    return StackHandlers(SimpleNamespace(gradio=SimpleNamespace(update=dict), setting_parts={}, settings=()), place)


def keys(handlers: StackHandlers, count: int = 3) -> list[int]:
    """Keys of so many layers, bottom first."""
    stack = handlers.place.stack(TOKEN)
    return [stack.add_picture(Image.new("RGBA", (8, 8), (number, 0, 0, 255))).key for number in range(count)]


@pytest.mark.parametrize(("deleted", "chosen"), [(0, 1), (1, 2), (2, 1)])
def test_after_a_deletion_the_layer_that_came_to_its_place_is_chosen_or_the_top_one(handlers, deleted, chosen):
    made = keys(handlers)
    updates = handlers.do("delete", TOKEN, str(made[deleted]))
    assert updates["list"]["value"] == str(made[chosen])


def test_after_the_last_deletion_nothing_is_chosen(handlers):
    (key,) = keys(handlers, 1)
    assert handlers.do("delete", TOKEN, str(key))["list"]["value"] is None


def test_an_emptied_stack_keeps_its_size_and_history_when_the_page_is_loaded_again(handlers):
    (key,) = keys(handlers, 1)
    handlers.do("delete", TOKEN, str(key))
    updates = handlers.arrive(TOKEN)
    assert updates["width"]["value"] == 64 and updates["undo"]["interactive"]


def test_a_stack_that_nothing_was_done_with_takes_the_size_that_suits_the_model_now(handlers):
    assert handlers.place.stack(TOKEN).state.width == 64
    assert handlers.arrive(TOKEN)["width"]["value"] == 128


def test_the_file_that_a_browser_may_still_be_fetching_stays(handlers):
    folders = [handlers.fresh_folder(TOKEN) for _ in range(3)]
    assert [folder.is_dir() for folder in folders] == [False, True, True]
