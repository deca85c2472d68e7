"""Translations: every text that our part of a WebUI's page shows has one, in every language, and none is left over."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import ui

gradio = pytest.importorskip("gradio")

from lib_layerdiffuse.core.methods import BASES, BLENDED  # noqa: E402
from lib_layerdiffuse.core.modes import MODES  # noqa: E402
from lib_layerdiffuse.core.picture.verdicts import VERDICTS  # noqa: E402
from lib_layerdiffuse.diagnosis import findings  # noqa: E402
from lib_layerdiffuse.diagnosis.causes import CAUSES, SAID  # noqa: E402
from lib_layerdiffuse.diagnosis.diagnosis import ADVICE, KNOWN, LISTED, OF_MANY, SENTENCES  # noqa: E402
from lib_layerdiffuse.diagnosis.trials import AS_IT_WAS, TOGETHER, TRIALS  # noqa: E402
from lib_layerdiffuse.form import findings_table  # noqa: E402
from lib_layerdiffuse.form.accordion import build_accordion  # noqa: E402
from lib_layerdiffuse.form.frames import FRAMES  # noqa: E402
from lib_layerdiffuse.form.stack.handlers import StackHandlers  # noqa: E402
from lib_layerdiffuse.form.stack.layout import StackLayout  # noqa: E402
from lib_layerdiffuse.form.stack.work import Watch  # noqa: E402
from lib_layerdiffuse.form.ways import ways_for  # noqa: E402
from lib_layerdiffuse.webui.host.host import loaded_base_note  # noqa: E402
from lib_layerdiffuse.webui.jobs import given_images  # noqa: E402
from lib_layerdiffuse.webui.layer_files import files_table  # noqa: E402
from lib_layerdiffuse.webui.page.axes import register_axes  # noqa: E402
from lib_layerdiffuse.webui.page.header import input_accordion_header  # noqa: E402
from lib_layerdiffuse.webui.page.localisation import FOLDER, TABLE, as_json, read_table  # noqa: E402
from lib_layerdiffuse.webui.page.options import register_options  # noqa: E402
from lib_layerdiffuse.webui.stack import tab  # noqa: E402

ROOT = Path(__file__).parents[2]
# Names and values, the same in every language; what WebUIs never translate (numbers) is no text.
NAMES = {"LayerDiffuse", "png", "webp", "auto", "float32", "float16", "bfloat16"}
NUMBER = re.compile(r"[.\d]+")
PICTOGRAMS = re.compile("[\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff©®™↔-↪]")  # texts with one are passed over
FILE_NAME = re.compile(r"\w+\.safetensors|\d+\.\d MB")
TRAITS = ("label", "info", "placeholder")
FOREIGN = (
    {"is_sd2": True},
    {"is_sd3": True},
    {"is_sdxl": True, "channels": (4, 384)},
    {"is_sd1": True, "channels": (9, 320)},
    {"is_sd1": True, "channels": (8, 320)},
)


class TextNodes(HTMLParser):
    """The texts of an HTML fragment, as a browser has them."""

    def __init__(self, fragment: str):
        super().__init__()
        self.texts: list[str] = []
        self.feed(fragment)

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def texts_of(traits: dict[str, Any], kind: str) -> Iterator[str]:
    """What a component of this kind shows: label, help, choices; of a button and of HTML its value."""
    yield from (traits[name] for name in TRAITS if isinstance(traits.get(name), str))
    for choice in traits.get("choices") or ():
        yield choice[0] if isinstance(choice, (list, tuple)) else choice
    if kind == "HTML":
        yield from TextNodes(traits.get("value") or "").texts
    if kind == "Button":
        yield traits.get("value") or ""


def shown_by(block: Any) -> Iterator[str]:
    """The texts of a built component."""
    traits = {name: getattr(block, name, None) for name in (*TRAITS, "choices", "value")}
    yield from texts_of(traits, type(block).__name__)


def accordion_texts(base: str | None) -> Iterator[str]:
    """The accordion with a base loaded: as it is built, and after every choice of mode and method."""
    with gradio.Blocks() as blocks:
        accordion = build_accordion(
            gradio,
            base=lambda: base,
            header=input_accordion_header,
            prefix="txt2img_layerdiffuse",
            last_result=lambda visitor, frame: None,
            files=lambda name, method: [],
            chains=True,
            find_out=lambda task, visitor: [""],
        )
    for block in blocks.blocks.values():
        if getattr(block, "visible", True) or block in accordion.outputs:
            yield from shown_by(block)
    answers = [accordion.choose_mode(mode) for mode in MODES] + [accordion.choose_method(row.id) for row in ways_for()]
    for component, update in [pair for answer in answers for pair in zip(accordion.outputs, answer, strict=True)]:
        yield from texts_of(update, type(component).__name__)
    for frame in FRAMES:
        _image, button = accordion.use_last(frame, "me")
        yield button["value"]


def settings_texts(shared: Any) -> Iterator[str]:
    """The settings page."""
    register_options()
    for info in shared.opts.data_labels.values():
        yield from (info.label, info.section[1])
        yield from (info.component_args or {}).get("choices", ())


def table_texts(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The settings' table of layer files, for each base and for none."""
    for base in (None, *BASES):
        monkeypatch.setattr(files_table, "loaded_base", lambda base=base: base)
        with gradio.Blocks() as blocks:
            files_table.build(gradio)
        for block in blocks.blocks.values():
            yield from (text for text in shown_by(block) if not FILE_NAME.fullmatch(text))


def axes_texts(script: Any) -> Iterator[str]:
    """Names of the plot's axes."""
    register_axes()
    yield from (axis.label for axis in script.module.axis_options if "LayerDiffuse" in axis.label)


def checkpoint_texts(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """What is said of a checkpoint without methods."""
    for flags in FOREIGN:
        flags = dict(flags)
        inputs, outputs = flags.pop("channels", (4, 320))
        first = SimpleNamespace(in_channels=inputs, out_channels=outputs)
        unet = SimpleNamespace(get_submodule=lambda _name, first=first: first)
        model = SimpleNamespace(model=SimpleNamespace(diffusion_model=unet), **flags)
        monkeypatch.setattr("lib_layerdiffuse.webui.host.host.loaded_model", lambda model=model: model)
        yield loaded_base_note()


def note_texts() -> Iterator[str]:
    """Notes under the gallery that are the same in every job; those that tell a name or a number stay English."""
    told = [given_images.FLATTENED]
    told += [given_images.BOARD.format(name=name) for name in ("start picture", "foreground image")]
    told += [f"{verdict.sentence} {ADVICE}" for verdict in VERDICTS]
    told += [text for path in (ROOT / "lib_layerdiffuse").rglob("*.py") for text in constants_in(path, "note")]
    yield from (f"LayerDiffuse: {text}" for text in told)


def diagnosis_texts() -> Iterator[str]:
    """The parts of a comment on failed alpha, which is put together in the page's language."""
    yield from (OF_MANY, KNOWN, ADVICE, SAID, LISTED, SENTENCES, *(verdict.sentence for verdict in VERDICTS))
    for cause in CAUSES:
        yield from (cause.seen, cause.remedy)


def findings_texts() -> Iterator[str]:
    """What the button that finds out may answer."""
    yield from (*findings_table.HEAD, *(verdict.name for verdict in VERDICTS), findings.FINE, findings.NO_PICTURE)
    yield from (AS_IT_WAS, TOGETHER, *(trial.name for trial in TRIALS))
    yield from (findings.BY_CHANCE, findings.HELPFUL, findings.LESS_OFTEN, findings.HELPLESS, findings.UNFINISHED)
    yield findings.STOPPED


def script_texts() -> Iterator[str]:
    """The texts that a script of the page shows."""
    script = (ROOT / "javascript/layerdiffuse_layers.js").read_text(encoding="utf-8")
    yield from json.loads(re.search(r"const TEXTS = (\{.*?\});", script, re.DOTALL)[1]).values()


def tab_texts(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The Layers tab, the buttons that lead to it, and what is put into it as a whole."""
    monkeypatch.setattr(tab, "samplers", lambda: ("DDIM",))
    rows = tab.settings()
    with gradio.Blocks() as blocks:
        layout = StackLayout(gradio, (512, 512), rows, destinations=tab.DESTINATIONS).build()
        handlers = StackHandlers(layout, SimpleNamespace())
    unseen = {f"layerdiffuse_layers_{name}" for name in ("token", "arrive", "style")}
    names = {name for row in rows for name in row.choices}
    for block in blocks.blocks.values():
        if getattr(block, "elem_id", "") not in unseen:
            yield from (text for text in shown_by(block) if text not in names)
    for updates in (handlers.busy(Watch()), handlers.idle()):
        yield updates["stop"]["value"]
    stopped = Watch()
    stopped.stop.set()
    yield handlers.busy(stopped)["stop"]["value"]
    yield from (tab.TAB_TITLE, tab.SEND)
    yield from constants_in(ROOT / "lib_layerdiffuse/form/stack/work.py", "append")


def constants_in(path: Path, call: str) -> Iterator[str]:
    """The texts that are passed as they are to calls of this name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == call and node.args:
            yield from [node.args[0].value] if isinstance(node.args[0], ast.Constant) else []


@pytest.fixture
def page_texts(a1111, monkeypatch, tmp_path) -> set[str]:
    """All that our part of the page shows, and that a WebUI would translate."""
    monkeypatch.setattr(sys.modules["modules.paths"], "models_path", str(tmp_path))  # where all files are missing
    texts = [
        *table_texts(monkeypatch),
        *checkpoint_texts(monkeypatch),
        *note_texts(),
        *script_texts(),
        *findings_texts(),
        *diagnosis_texts(),
        *tab_texts(monkeypatch),
        a1111.entry.KeepTransparency.name,
    ]
    shared, plot, box = ui.shared(), ui.plot_script(), ui.input_accordion(gradio)
    scripts, components = SimpleNamespace(scripts_data=[plot]), SimpleNamespace(InputAccordion=box)
    ui.put_modules(monkeypatch, shared=shared, scripts=scripts, ui_components=components)
    texts += [text for base in (None, *BASES) for text in accordion_texts(base)]
    texts += [*settings_texts(shared), *axes_texts(plot)]
    return {text for text in texts if text and text not in NAMES and not NUMBER.fullmatch(text)}


def test_every_text_has_a_translation_and_no_translation_is_stale(page_texts):
    assert len(page_texts) > 100 and BLENDED.capitalize() in page_texts
    for language, texts in read_table().items():
        assert sorted(page_texts - set(texts)) == [], f"without a translation in {language}"
        assert sorted(set(texts) - page_texts) == [], f"no longer on the page, but in {language}"


def test_the_files_are_those_of_the_table():
    files = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    wanted = {language: as_json(texts) for language, texts in read_table().items()}
    assert files == wanted, "run: python -m lib_layerdiffuse.webui.localisation"


@pytest.mark.parametrize("language", ["zh_CN", "ja_JP"])
def test_texts_are_such_as_webuis_translate_and_no_translation_is_translated_again(language):
    texts = read_table()[language]
    assert len(texts) == len(TABLE.read_text(encoding="utf-8").splitlines()) - 1, "a text stands in the table twice"
    assert not [text for text in texts if text != text.strip() or PICTOGRAMS.search(text) or NUMBER.fullmatch(text)]
    assert not [text for text in texts.values() if not text.strip() or text in texts]


@pytest.mark.parametrize("language", ["zh_CN", "ja_JP"])
def test_numbers_names_and_addresses_survive_translation(language):
    def kept(text: str) -> list[str]:
        things = r"\{[^}]*\}|\d+|https?://[\w./-]+|models/\w+|SDXL|SD\d(?:\.\d)?|LayerDiffuse"
        return sorted(re.findall(things, text, re.ASCII))

    assert {text: kept(text) for text in read_table()[language]} == {
        text: kept(translation) for text, translation in read_table()[language].items()
    }
