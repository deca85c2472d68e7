"""Layers of the chosen picture's set as files on the page."""

from __future__ import annotations

from pathlib import Path

import pytest
from page_visitor import settings

gradio = pytest.importorskip("gradio", minversion="6.0")
pytest.importorskip("tiny", reason="needs the standalone extra")

from lib_layerdiffuse.form.arguments import BY_NAME  # noqa: E402
from lib_layerdiffuse.page.handlers import Handlers  # noqa: E402
from lib_layerdiffuse.page.layer_files import CHOICES  # noqa: E402
from lib_layerdiffuse.page.layout import Layout  # noqa: E402
from lib_layerdiffuse.page.visits import Visits  # noqa: E402
from lib_layerdiffuse.sets.reading import read_set  # noqa: E402


@pytest.fixture(scope="module")
def page(layered):
    """The handlers of a page that is not served, after a run of two sets."""
    with gradio.Blocks():
        layout = Layout(layered)
        layout.build()
    visits = Visits(grace=0.3)
    page = Handlers(layered, layout, visits)
    components = layout.accordion.components
    accordion = {name: components[name].value for name in BY_NAME} | {"enabled": True, "method": "sd15_joint"}
    fields = settings(count=2, steps=1)
    list(page.generate(None, *(fields[name] for name in layout.form), *accordion.values()))
    yield page
    visits.close()


def test_every_format_is_written_into_the_visitors_folder(page):
    folder = page.visits.of(None).shown.folder
    for _, kind in CHOICES:
        update = page.save_layers(kind, None)
        path = Path(update["value"])
        assert update["visible"] and path.parent == folder and path.name in update["label"]
        assert page.save_layers(kind, None)["value"] == str(path)  # not once more
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_the_set_of_the_chosen_picture_is_saved(page):
    files = page.visits.of(None).shown.files
    for index, first in ((4, 3), (0, 0)):
        parameters, kind, button = page.choose(gradio.EventData(None, {"index": index}), None)
        assert parameters == files[index].parameters and kind["value"] == "" and not button["visible"]
        made = read_set(page.save_layers("zip", None)["value"])
        assert [layer.seed for layer in made] == [files[first + 1].seed, files[first].seed]
        assert made.blended is not None and made.is_opaque


def test_nothing_is_saved_without_a_format_or_pictures(page, layered):
    for kind in ("", None):
        assert page.save_layers(kind, None) == gradio.update(value=None, visible=False)
    fresh = Handlers(layered, page.layout, Visits(grace=0.3))
    assert not fresh.save_layers("psd", None)["visible"]
    fresh.visits.close()


def test_a_format_that_is_none_is_refused(page, monkeypatch):
    told = []
    monkeypatch.setattr(gradio, "Warning", lambda text, **_: told.append(text))
    assert not page.save_layers("<b>", None)["visible"] and "expected one of psd" in told[0]
