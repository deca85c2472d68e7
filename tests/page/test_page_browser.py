"""The real page in headless Chromium on tiny random models, as a visitor uses it."""

from __future__ import annotations

import io
import time
import zipfile

import numpy as np
import pytest
from layers_tab import wait_until
from page_visitor import Visitor, read_png
from PIL import Image

gradio = pytest.importorskip("gradio", minversion="6.0")
pytest.importorskip("tiny", reason="needs the standalone extra")

from lib_layerdiffuse.page.server import Server, ServerSettings  # noqa: E402

SEED = "#page_seed input"
TEXT = "#page_parameters textarea"
TILES = "#page_gallery .gallery-item button"


def test_issue_9_prompt_generate_and_download_the_real_rgba_files(visitor):
    tab = visitor.tab
    visitor.fill_in("red apple")
    visitor.generate()
    visitor.wait_for_pictures(2)
    tab.wait_for_selector("#page_gallery.ld-checkerboard")

    name, data = visitor.download("#page_files a >> nth=1")
    image = read_png(data)
    seed = int(name.removeprefix("red-apple-").removesuffix(".png"))
    assert image.mode == "RGBA" and image.size == (64, 64)
    assert np.ptp(np.asarray(image)[..., 3]) > 0
    assert "red apple" in image.text["parameters"] and f"Seed: {seed}" in image.text["parameters"]

    zip_name, packed = visitor.download("#page_zip")
    assert zip_name == f"red-apple-{seed - 1}.zip"
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert archive.namelist() == [f"red-apple-{seed - 1}.png", name]
        assert archive.read(name) == data


def test_box_off_gives_the_ordinary_opaque_picture(visitor):
    visitor.tab.uncheck("#layerdiffuse_enabled input")
    visitor.tab.wait_for_selector("#layerdiffuse_body", state="hidden")
    visitor.fill_in("banana", count=1)
    visitor.generate()
    visitor.tab.wait_for_selector("#page_gallery:not(.ld-checkerboard)")
    _, data = visitor.download("#page_files a")
    assert read_png(data).mode == "RGB"


def test_every_control_of_the_preview_works(visitor):
    tab = visitor.tab
    visitor.fill_in("red apple", count=3, steps=1)
    visitor.generate()
    tab.click(f"{TILES} >> nth=1")
    tab.wait_for_selector("#page_gallery .preview")
    names = tab.evaluate(
        "[...document.querySelectorAll('#page_gallery .icon-button')].map(b => b.ariaLabel || b.title)"
    )
    assert names == ["Download", "Fullscreen", "Close"]
    first = tab.input_value(TEXT)
    name, data = visitor.download("#page_gallery .icon-button >> nth=0")
    assert name.endswith(".png") and read_png(data).mode == "RGBA"
    tab.click("#page_gallery .thumbnail-small >> nth=2")
    tab.wait_for_function(f"before => document.querySelector('{TEXT}').value !== before", arg=first)
    tab.keyboard.press("ArrowLeft")
    tab.click("#page_gallery .icon-button >> nth=1")
    tab.wait_for_selector("#page_gallery.fullscreen")
    tab.click("#page_gallery .icon-button >> nth=1")
    tab.wait_for_selector("#page_gallery:not(.fullscreen)")
    tab.click("#page_gallery .icon-button[aria-label=Close], #page_gallery .icon-button[title=Close]")
    tab.wait_for_selector("#page_gallery .preview", state="detached")
    tab.click("#page_parameters button")  # copies


def test_labels_stand_below_the_pictures_and_results_beside_the_form(visitor):
    tab = visitor.tab
    visitor.fill_in("red apple", count=1, steps=1)
    visitor.generate()
    picture, label = (
        tab.locator(f"#page_gallery .gallery-item {part}").bounding_box() for part in ("img", ".caption-label")
    )
    assert label["y"] >= picture["y"] + picture["height"] - 1
    form, results = (tab.locator(name).bounding_box() for name in ("#page_ask", "#page_results"))
    assert abs(form["y"] - results["y"]) < 5 and results["x"] > form["x"] + form["width"] - 1


def test_the_box_is_the_next_stop_of_the_keyboard_after_the_buttons(visitor):
    visitor.tab.focus("#page_generate")
    for _ in range(2):  # Stop is skipped while nothing runs
        visitor.tab.keyboard.press("Tab")
        if visitor.tab.evaluate("() => !!document.activeElement.closest('#layerdiffuse_enabled')"):
            return
    raise AssertionError("more than two tabs from Generate to the box")


def test_stop_keeps_what_is_finished_and_the_page_goes_on(visitor, slow):
    tab = visitor.tab
    visitor.fill_in("banana", count=16, steps=100)
    assert tab.is_disabled("#page_stop")
    tab.click("#page_generate")
    tab.wait_for_selector("#page_stop:not([disabled])")
    assert tab.is_disabled("#page_generate")
    for listed in ("#page_files", "#page_zip", "#page_parameters"):
        tab.wait_for_selector(listed, state="hidden")
    begin = time.monotonic()
    tab.click("#page_stop")
    tab.wait_for_selector("#page_generate:not([disabled])")
    assert time.monotonic() - begin < 15
    assert "stopped after" in visitor.message()
    assert tab.is_disabled("#page_stop")
    visitor.fill_in("banana", count=1, steps=1)
    visitor.generate()
    visitor.wait_for_pictures(1)


def test_enter_during_a_run_starts_no_second_one_and_stop_ends_all(visitor, demo_server, slow):
    tab = visitor.tab
    visitor.fill_in("banana", count=16, steps=100)
    tab.click("#page_generate")
    tab.wait_for_selector("#page_stop:not([disabled])")
    visit = next(visit for visit in demo_server.visits._all() if visit.running)
    begun = visit.begun
    for _ in range(3):
        tab.press("#page_prompt textarea", "Shift+Enter")
    time.sleep(0.5)
    assert visit.begun == begun
    tab.click("#page_stop")
    tab.wait_for_selector("#page_generate:not([disabled])")
    assert visit.running is None and visit.begun == begun


def test_unknown_words_bring_a_hint_and_a_click_on_a_known_one_removes_it(visitor):
    tab = visitor.tab
    tab.fill("#page_prompt textarea", "a zeppelin")
    tab.wait_for_selector("#page_hints [role=status]")
    assert "zeppelin" in tab.inner_text("#page_hints")
    tab.click("#page_examples button:has-text('soap bubbles')")
    tab.wait_for_selector("#page_hints [role=status]", state="hidden")
    assert tab.input_value("#page_prompt textarea") == "soap bubbles"


def test_errors_are_told_on_the_page_and_pictures_stay(visitor):
    visitor.fill_in("banana", count=1, steps=1)
    visitor.generate()
    visitor.fill_in("", count=1)
    visitor.tab.click("#page_generate")
    visitor.tab.wait_for_selector("#page_messages [role=alert]")
    assert "empty prompt" in visitor.message() and "What to do" in visitor.message()
    assert visitor.tab.is_enabled("#page_generate") and visitor.tab.is_visible("#page_files")


def test_a_broken_picture_is_told_and_taken_out(visitor, tmp_path, capfd):
    tab = visitor.tab
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    Image.new("RGB", (40, 30), "red").save(tmp_path / "whole.png")
    visitor.fill_in("banana", count=1, steps=1)
    tab.set_input_files("#page_init input[type=file]", tmp_path / "broken.png")
    tab.wait_for_selector("#page_messages [role=alert]:has-text('broken.png')")
    assert "What to do" in visitor.message()
    tab.wait_for_selector(".toast-body:has-text('broken.png')")  # the messages may be out of sight
    tab.wait_for_selector("#page_init input[type=file]", state="attached")
    tab.set_input_files("#page_init input[type=file]", tmp_path / "whole.png")
    tab.wait_for_selector("#page_init img")
    tab.wait_for_selector("#page_messages [role=alert]", state="hidden")
    visitor.generate()
    tab.click("#page_init button[title='Remove Image']")
    tab.wait_for_selector("#page_init img", state="detached")
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_picture_is_followed(visitor, tmp_path):
    tab = visitor.tab
    picture = Image.new("RGB", (64, 64), "white")
    picture.paste("red", (16, 16, 48, 48))
    picture.save(tmp_path / "square.png")
    visitor.fill_in("banana", count=1, steps=1)
    tab.click("#page_control > button")
    tab.set_input_files("#page_control_image input[type=file]", tmp_path / "square.png")
    tab.wait_for_selector("#page_control_image img")
    visitor.generate()
    tab.wait_for_function(f"() => document.querySelector('{TEXT}').value.includes('Model: demo_control_lines')")
    tab.click("#page_control_image button[title='Remove Image']")
    tab.wait_for_selector("#page_control_image img", state="detached")
    visitor.generate()
    tab.wait_for_function(f"() => !document.querySelector('{TEXT}').value.includes('ControlNet')")


def test_the_seed_of_the_chosen_picture_can_be_used_again(visitor):
    tab = visitor.tab
    visitor.fill_in("green apple", count=2, steps=1)
    visitor.generate()
    tab.wait_for_function(f"() => document.querySelector('{TEXT}').value.startsWith('green apple')")
    first = tab.input_value(TEXT)
    tab.click("#page_reuse")
    tab.wait_for_function(f"() => Number(document.querySelector('{SEED}').value) >= 0")
    assert f"Seed: {tab.input_value(SEED)}," in first
    tab.click(f"{TILES} >> nth=1")
    tab.wait_for_function(f"before => document.querySelector('{TEXT}').value !== before", arg=first)
    before = tab.input_value(SEED)
    tab.click("#page_reuse")
    tab.wait_for_function(f"before => document.querySelector('{SEED}').value !== before", arg=before)
    assert f"Seed: {tab.input_value(SEED)}," in tab.input_value(TEXT)


@pytest.fixture(scope="module")
def someone(browser, demo_server):
    """A visitor of the next tests alone, who leaves in the last of them."""
    return Visitor(browser, demo_server)


def test_a_page_that_is_loaded_again_keeps_prompt_fields_and_pictures(someone):
    tab = someone.tab
    someone.fill_in("banana", count=3, steps=1)
    someone.generate()
    tab.fill("#page_prompt textarea", "banana and more")
    tab.wait_for_selector("#page_hints [role=status]")
    tab.reload()
    someone.wait_for_pictures(3)
    assert tab.input_value("#page_prompt textarea") == "banana and more"
    assert tab.input_value("#page_count input[type=number]") == "3"
    name, data = someone.download("#page_files a")
    assert name.startswith("banana-") and read_png(data).mode == "RGBA"


def test_a_run_is_followed_again_after_the_page_was_loaded_again(someone, slow):
    tab = someone.tab
    someone.fill_in("banana", count=16, steps=100)
    tab.click("#page_generate")
    tab.wait_for_selector("#page_stop:not([disabled])")
    tab.reload()
    tab.wait_for_selector("#page_stop:not([disabled])")
    assert tab.is_disabled("#page_generate") and tab.is_visible("#page_progress")
    tab.click("#page_stop")
    tab.wait_for_selector("#page_generate:not([disabled])")
    assert "stopped after" in someone.message()


def test_the_files_and_uploads_of_a_visitor_who_leaves_are_removed(someone, demo_server, tmp_path, monkeypatch):
    monkeypatch.setattr(demo_server.visits, "grace", 1.0)
    Image.new("RGB", (41, 31), "blue").save(tmp_path / "own-picture.png")
    someone.fill_in("soap bubbles", count=1, steps=1)
    someone.tab.set_input_files("#page_init input[type=file]", tmp_path / "own-picture.png")
    someone.tab.wait_for_selector("#page_init img")
    someone.generate()
    patterns = ("soap-bubbles-*.zip", "own-picture.png")
    files = {path for pattern in patterns for path in demo_server.visits.folder.rglob(pattern)}
    upload = next(path for path in files if path.name == "own-picture.png")
    visit = next(visit for visit in demo_server.visits._all() if upload in visit.uploads)
    gone = {path for path in files if visit.folder in path.parents or path in visit.uploads}
    assert len(gone) == 2
    someone.tab.close()
    assert wait_until(lambda: not any(path.exists() for path in gone))


def test_no_copies_are_made_of_pictures(visitor, demo_server):
    visitor.fill_in("soap bubbles", count=1, steps=1)
    visitor.generate()
    assert len(list(demo_server.visits.folder.rglob("soap-bubbles-*.png"))) == 1


LOOKS = {
    "desktop-light": {"viewport": {"width": 1400, "height": 1000}, "color_scheme": "light"},
    "desktop-dark": {"viewport": {"width": 1400, "height": 1000}, "color_scheme": "dark"},
    "phone-light": {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True},
}
ELSEWHERE = "#page_gallery, #page_buttons, #page_words .gallery, .tab-wrapper"
CONTROLS = "button:visible:enabled, input[type=checkbox]:visible, input[type=range]:visible, #page_files a:visible"


@pytest.mark.long
@pytest.mark.parametrize("look", LOOKS)
def test_every_control_can_be_clicked(chromium, demo_server, look, capfd):
    context = chromium.new_context(**LOOKS[look], accept_downloads=True)
    someone = Visitor(context, demo_server)
    tab = someone.tab
    someone.fill_in("banana", count=2, steps=1)
    someone.generate()
    for fold in ("#page_words > button", "#layerdiffuse_advanced > button"):
        tab.click(fold)
    tab.wait_for_selector("#layerdiffuse_ending_step", state="visible")
    clicked = 0
    for control in tab.query_selector_all(CONTROLS):
        elsewhere = control.evaluate(f"one => !!one.closest('{ELSEWHERE}')")
        if not elsewhere and control.is_visible() and control.is_enabled():
            again = control.evaluate("one => one.type === 'checkbox' || one.matches('.label-wrap')")  # what it hid
            for _ in range(1 + again):
                control.click(timeout=10_000)
            clicked += 1
    assert clicked > 20 and someone.errors == [] and someone.foreign == []
    tab.reload()  # whatever is open now, the next run is fine
    tab.wait_for_selector("#page_generate:not([disabled])")
    someone.fill_in("banana", count=1, steps=1)
    someone.generate()
    assert someone.errors == [] and "Traceback" not in "".join(capfd.readouterr())
    context.close()


@pytest.fixture
def phone(chromium, demo_server):
    context = chromium.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    someone = Visitor(context, demo_server, "?__theme=dark")
    yield someone
    context.close()


SMALL = """() => [...document.querySelectorAll('button, a, input, label:has(> input)')].filter(element => {
  const box = element.getBoundingClientRect();
  const inside = element.matches('[type=checkbox], [type=radio]') && element.closest('label');
  return box.width && !inside && element.checkVisibility() && (box.height < 40 || box.width < 40);
}).map(element => element.outerHTML.slice(0, 90))"""


def test_on_a_phone_results_are_by_the_button_and_controls_are_large(phone):
    tab = phone.tab
    tab.wait_for_selector("#layerdiffuse_body", state="visible")
    tab.fill("#page_prompt textarea", "red apple")
    tab.tap("#page_generate")
    tab.wait_for_selector("#page_zip", state="visible")
    button, gallery = (tab.locator(name).bounding_box() for name in ("#page_generate", "#page_gallery"))
    assert 0 <= gallery["y"] - button["y"] - button["height"] < 120
    for fold in ("#page_more > button", "#page_words > button", "#layerdiffuse_advanced > button"):
        tab.tap(fold)
    tab.wait_for_selector("#page_denoise", state="visible")
    assert tab.evaluate(SMALL) == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    tab.tap(f"{TILES} >> nth=0")
    tab.wait_for_selector("#page_gallery .preview")
    assert tab.evaluate(SMALL) == [] and phone.errors == []


def test_the_demo_model_paints_a_set_of_a_scene_that_was_clicked(visitor):
    tab = visitor.tab
    assert tab.locator("#layerdiffuse_mode input").count() == 4
    tab.click("#page_examples_1 button >> nth=0")
    tab.wait_for_function("() => document.querySelector('#page_prompt textarea').value.includes(' on a ')")
    prompt = tab.input_value("#page_prompt textarea")
    assert not tab.is_visible("#page_hints [role=status]")
    tab.check("#layerdiffuse_mode input[value=joint]")
    tab.wait_for_selector("#layerdiffuse_bg_additional_prompt")
    visitor.fill_in(prompt, count=2, steps=1)
    visitor.generate()
    visitor.wait_for_pictures(6)
    captions = tab.locator("#page_gallery .caption-label").all_inner_texts()
    assert [text.split(",")[0] for text in captions] == ["foreground", "background", "blended"] * 2
    tab.check("#layerdiffuse_mode input[value=single]")
    tab.wait_for_selector("#layerdiffuse_bg_additional_prompt", state="hidden")


def test_layer_methods_show_their_inputs_and_name_their_layers(browser, layered, tmp_path):
    with Server(layered, ServerSettings(port=0), grace=60.0) as server:
        someone = Visitor(browser, server)
        tab = someone.tab
        tab.wait_for_selector("#layerdiffuse_mode", state="visible")
        assert not tab.is_visible("#layerdiffuse_fg_additional_prompt")
        tab.check("#layerdiffuse_mode input[value=joint]")
        tab.wait_for_selector("#layerdiffuse_fg_additional_prompt")
        assert not tab.is_visible("#layerdiffuse_fg_image")
        tab.fill("#layerdiffuse_bg_additional_prompt textarea, #layerdiffuse_bg_additional_prompt input", "a beach")
        someone.fill_in("a cat", count=1, steps=1)
        someone.generate()
        captions = tab.locator("#page_gallery .caption-label").all_inner_texts()
        assert [text.split(",")[0] for text in captions] == ["foreground", "background", "blended"]

        tab.check("#layerdiffuse_mode input[value=from-foreground]")
        tab.wait_for_selector("#layerdiffuse_fg_image")
        assert not tab.is_visible("#layerdiffuse_bg_image")
        assert not tab.is_visible("#layerdiffuse_fg_additional_prompt")
        tab.click("#page_generate")
        tab.wait_for_selector("#page_messages [role=alert]")
        assert "fg_image" in someone.message()

        picture = np.zeros((40, 30, 4), dtype=np.uint8)
        picture[10:30, 5:25] = (200, 40, 40, 255)
        Image.fromarray(picture).save(tmp_path / "cut-out.png")
        tab.set_input_files("#layerdiffuse_fg_image input[type=file]", tmp_path / "cut-out.png")
        tab.wait_for_selector("#layerdiffuse_fg_image img")
        someone.generate()
        someone.wait_for_pictures(2)

        tab.reload()
        someone.wait_for_pictures(2)
        tab.wait_for_selector("#layerdiffuse_fg_image img")
        assert tab.is_checked("#layerdiffuse_mode input[value=from-foreground]")
        someone.generate()
        assert someone.foreign == [] and someone.errors == []
        tab.close()
