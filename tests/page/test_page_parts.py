"""The page's parts without a browser: form, runs, turns, visits, the command line."""

from __future__ import annotations

import argparse
import socket
import threading
import time
import zipfile
from pathlib import Path

import pytest
from layers_tab import wait_until
from page_visitor import settings
from PIL import Image

gradio = pytest.importorskip("gradio", minversion="6.0")
tiny = pytest.importorskip("tiny", reason="needs the standalone extra")

from lib_layerdiffuse.core.errors import BaseMismatchError, InputError, OutputError, WeightsError  # noqa: E402
from lib_layerdiffuse.files.downloads import LayerFiles  # noqa: E402
from lib_layerdiffuse.form.arguments import LayerArguments  # noqa: E402
from lib_layerdiffuse.page import cli  # noqa: E402
from lib_layerdiffuse.page.form import Form  # noqa: E402
from lib_layerdiffuse.page.handlers import Handlers  # noqa: E402
from lib_layerdiffuse.page.layout import Layout  # noqa: E402
from lib_layerdiffuse.page.model import PageModel  # noqa: E402
from lib_layerdiffuse.page.server import Server, ServerSettings  # noqa: E402
from lib_layerdiffuse.page.turns import Turns  # noqa: E402
from lib_layerdiffuse.page.visits import Visits  # noqa: E402
from lib_layerdiffuse.standalone.diffusers_host import DiffusersHost  # noqa: E402
from lib_layerdiffuse.standalone.outputs import PictureFolder  # noqa: E402
from lib_layerdiffuse.standalone.pictures import Watchers  # noqa: E402
from lib_layerdiffuse.standalone.settings import GenerateSettings  # noqa: E402

TOKEN, OTHER = "0" * 32, "f" * 32


@pytest.fixture
def visits():
    made = Visits(grace=0.3)
    yield made
    made.close()
    assert not made.folder.exists()


@pytest.fixture
def page(demo, visits):
    """The handlers of a page that is not served."""
    with gradio.Blocks():
        layout = Layout(demo)
        layout.build()
    return Handlers(demo, layout, visits)


def form_values(page: Handlers, enabled: bool = True, **choices) -> list:
    """Raw values of the whole form, as the browser sends them."""
    fields = settings(**choices)
    accordion = [component.value for component in page.layout.accordion.inputs[1:]]
    return [*(fields[name] for name in page.layout.form), enabled, *accordion]


def test_the_box_decides_between_opaque_and_transparent():
    assert not Form(settings(), LayerArguments()).generate_settings("demo").transparent
    chosen = Form(settings(), LayerArguments(enabled=True, weight=0.5, ending_step=0.8, passes=2))
    run = chosen.generate_settings("demo")
    assert (run.transparent, run.method, run.mode) == (True, "demo_fg", "single")
    assert (run.weight, run.stop_at, run.passes, run.resize_mode) == (0.5, 0.8, 2, "crop-and-resize")
    run.validated()


def test_a_picture_to_follow_brings_the_pages_own_controlnet(demo):
    usual = Form(settings(control_strength=0.5), LayerArguments()).generate_settings("demo", demo.controlnet)
    assert usual.controlnet is None and not usual.draw_lines and usual.control_strength == 1
    given = settings(control_image=Image.new("RGBA", (64, 64), "white"), control_strength=0.5)
    for layers in (LayerArguments(), LayerArguments(enabled=True)):
        run = Form(given, layers).generate_settings("demo", demo.controlnet)
        assert run.controlnet == demo.controlnet and run.draw_lines and run.control_strength == 0.5
        run.validated()
    names = list(settings())
    with pytest.raises(InputError, match="draw_lines"):
        Form.parse(names, (*settings(draw_lines="yes").values(),), "demo")


def test_the_field_is_there_only_where_the_model_has_a_controlnet(demo, layered, tmp_path):
    assert demo.controlnet.name == "demo_control_lines.safetensors" and layered.controlnet is None
    for model, visible in ((demo, True), (layered, False)):
        with gradio.Blocks():
            layout = Layout(model)
            layout.build()
        fold = layout.form["control_image"].parent
        assert (fold.elem_id, fold.visible) == ("page_control", visible)
    mine = tiny.write_controlnet(tmp_path, layered.pipeline.pipeline.unet)
    assert layered.checked_controlnet(mine) == mine
    with pytest.raises(WeightsError, match="does not fit"):
        layered.checked_controlnet(demo.controlnet)


def test_examples_are_of_things_of_scenes_and_of_both(demo):
    examples = demo.examples
    assert list(examples) == ["things", "things in scenes, mode Joint", "scenes"]
    assert examples["scenes"] == ["a beach", "a meadow"]
    assert all(text.endswith(("on a beach", "on a meadow")) for text in examples["things in scenes, mode Joint"])
    assert not demo.hints(examples["things in scenes, mode Joint"][0])


def test_methods_whose_files_are_not_there_are_not_offered(demo, tmp_path):
    (folder,) = demo.pipeline.files.folders
    for path in folder.glob("*.safetensors"):
        if path.stem not in ("layer_demo_joint", "layer_demo_bg2fg"):
            (tmp_path / path.name).symlink_to(path)
    fewer = PageModel(DiffusersHost(demo.pipeline.pipeline, "demo", LayerFiles([tmp_path], offline=True)), {})
    with gradio.Blocks():
        layout = Layout(fewer)
        layout.build()
    assert [mode for _, mode in layout.accordion.mode.choices] == ["single", "from-foreground"]


def test_transparency_is_on_at_first_and_the_body_is_open(page):
    accordion = page.layout.accordion
    assert accordion.components["enabled"].value is True
    assert accordion.components["weight"].parent.parent.visible is not False
    values = form_values(page)
    assert Form.parse(list(page.layout.form), tuple(values), "demo").generate_settings("demo").transparent


def test_the_form_refuses_what_it_lacks_by_name():
    names = list(settings())
    with pytest.raises(InputError, match="seed"):
        Form.parse(names, (*settings(seed=None).values(),), "demo")
    with pytest.raises(InputError, match="fg_image"):
        Form(settings(), LayerArguments(enabled=True, method="sd15_fg2bg")).generate_settings("sd15")


def test_pictures_that_the_method_does_not_use_are_not_opened():
    names = list(settings())
    values = (*settings().values(), True, "sd15_fg", 1, 1, {"path": "/nowhere/broken.png"})
    assert Form.parse(names, values, "sd15").layers.fg_image is None
    with pytest.raises(InputError, match="not there"):
        Form.parse(names, (*settings().values(), True, "sd15_fg2bg", 1, 1, {"path": "/nowhere/broken.png"}), "sd15")


def test_a_run_reports_progress_and_each_picture(demo):
    fractions, pictures = [], []
    watchers = Watchers(lambda fraction, text: fractions.append(fraction), None, pictures.append)
    done = demo.paint(GenerateSettings("banana", count=2, batch=1, steps=2, seed=3, passes=1), watchers)
    assert [picture.seed for picture in pictures] == [picture.seed for picture in done] == [3, 4]
    assert fractions == sorted(fractions) and fractions[-1] <= 1


def test_errors_of_a_run_reach_the_page(demo, visits):
    run = visits.of("one").begin_run()
    run.start(demo, GenerateSettings("banana", mode="joint", method="sd15_joint"))
    list(run.follow())
    assert run.ended and isinstance(run.error, BaseMismatchError) and not run.files


def test_an_error_after_the_first_picture_leaves_its_file(page, monkeypatch):
    saved, save = [], PictureFolder.save

    def save_once(folder, picture):
        if saved:
            got = f"no space left while writing {folder.folder / 'x.png'}"
            raise OutputError(got, "room", "free space or choose another --out")
        saved.append(picture)
        return save(folder, picture)

    monkeypatch.setattr(PictureFolder, "save", save_once)
    last = list(page.generate(None, *form_values(page, count=2)))[-1]
    message = last[page.layout.results["messages"]]["value"]
    assert "no space left while writing x.png" in message and "--" not in message
    assert len(last[page.layout.results["files"]]["value"]) == 1


def test_the_handler_writes_files_and_leaves_no_trace(page, visits):
    results = page.layout.results
    last = list(page.generate(None, *form_values(page, count=2)))[-1]
    paths = [Path(path) for path in last[results["files"]]["value"]]
    assert [path.name for path in paths] == ["red-apple-5.png", "red-apple-6.png"]
    assert all(Image.open(path).mode == "RGBA" for path in paths)
    with zipfile.ZipFile(last[results["zip"]]["value"]) as archive:
        assert archive.namelist() == [path.name for path in paths]
        assert archive.read(paths[1].name) == paths[1].read_bytes()


def test_nothing_of_an_earlier_run_stays_listed_during_a_run(page):
    results = page.layout.results
    list(page.generate(None, *form_values(page)))
    updates = list(page.generate(None, *form_values(page)))
    assert updates[0][results["gallery"]]["value"] is None
    assert all(updates[0][results[name]]["visible"] is False for name in ("files", "zip", "parameters"))
    assert updates[-1][results["files"]]["visible"]


def test_each_answer_of_a_run_stands_alone(page):
    """A browser that gets several answers at once may pass over those between."""
    buttons, results = page.layout.buttons, page.layout.results
    *going, last = page.generate(None, *form_values(page, count=2, steps=10))
    assert len(going) > 1
    assert all(updates[buttons["generate"]]["interactive"] is False for updates in going)
    assert all(updates[results["progress"]]["visible"] is True for updates in going)
    assert last[buttons["generate"]]["interactive"] is True and len(last[results["gallery"]]["value"]) == 2


def test_a_run_that_is_refused_changes_nothing_that_is_shown(page):
    list(page.generate(None, *form_values(page)))
    refused = list(page.generate(None, *form_values(page, prompt=" ")))
    assert len(refused) == 1 and list(refused[0]) == [page.layout.results["messages"]]
    assert "empty prompt" in refused[0][page.layout.results["messages"]]["value"]


def test_one_run_for_each_visitor_and_stop_ends_it(page, visits):
    visit = visits.of("local")
    going = page.generate(None, *form_values(page, steps=100, count=16))
    next(going)
    second = list(page.generate(None, *form_values(page)))
    assert "one run at a time" in second[-1][page.layout.results["messages"]]["value"]
    page.stop(None)
    last = list(going)[-1]
    assert "stopped after" in last[page.layout.results["messages"]]["value"]
    assert visit.running is None
    assert list(page.generate(None, *form_values(page)))[-1][page.layout.results["files"]]["visible"]


def test_a_run_goes_on_when_its_page_is_gone_and_can_be_followed_again(page, visits):
    visit = visits.of("local")
    going = page.generate(None, *form_values(page, count=2, steps=3))
    next(going)
    going.close()
    assert visit.running is not None
    again = list(page.follow(visit, visit.running))
    assert len(again[-1][page.layout.results["files"]]["value"]) == 2


def test_the_seed_of_the_chosen_picture_is_used_again(page, visits):
    list(page.generate(None, *form_values(page, count=3)))
    assert page.chosen_seed(None) == 5
    for index, seed in ((2, 7), (0, 5)):
        page.choose(gradio.EventData(None, {"index": index}), None)
        assert page.chosen_seed(None) == seed
    for hostile in (None, {}, {"index": "1"}, {"index": 99}, {"index": -1}, {"index": [0, 1]}, []):
        page.choose(gradio.EventData(None, hostile), None)
        assert page.chosen_seed(None) == 5


def test_a_tab_that_is_loaded_again_finds_its_form_and_pictures(page, visits):
    visit = visits.arrive(None, TOKEN)
    list(page.generate(None, *form_values(page, prompt="banana", count=2, steps=3)))
    visit.prompt = "banana split"
    visits.leave("local")
    back = {}
    for updates in page.arrive(TOKEN, None):
        back |= updates
    layout = page.layout
    assert back[layout.form["prompt"]]["value"] == "banana split"
    assert (back[layout.form["count"]]["value"], back[layout.form["steps"]]["value"]) == (2, 3)
    assert len(back[layout.results["gallery"]]["value"]) == 2
    assert visits.of("local") is visit


def test_turns_are_taken_in_order_and_the_line_has_an_end():
    turns, order, gate = Turns(limit=3), [], threading.Event()

    def work(name: str) -> None:
        with turns.taken(Watchers()) as mine:
            gate.wait(10)
            order.append((name, mine))

    threads = []
    for name in "abc":
        threads.append(threading.Thread(target=work, args=(name,)))
        threads[-1].start()
        assert wait_until(lambda: len(turns._line) == len(threads))
    with pytest.raises(InputError, match="3 runs in line"), turns.taken(Watchers()):
        pass
    gate.set()
    for thread in threads:
        thread.join()
    assert order == [("a", True), ("b", True), ("c", True)]


def test_stop_works_while_another_visitor_uses_the_model(demo):
    with demo.turns.taken(Watchers()):
        stopped = demo.paint(GenerateSettings("banana"), Watchers(should_stop=lambda: True))
    assert stopped.stopped and not len(stopped)


def test_only_the_last_pictures_and_the_new_run_of_a_visitor_are_kept(page, visits):
    visit = visits.of("local")
    folders = []
    for prompt in ("banana", "red apple", "green apple"):
        list(page.generate(None, *form_values(page, prompt=prompt)))
        folders.append(visit.shown.folder)
    assert [folder.exists() for folder in folders] == [False, True, True]
    assert visits.of("one") is visits.of("one") and visits.of("two") is not visits.of("one")


def test_the_files_of_who_leaves_go_at_once_without_a_tab_and_after_a_while_with_one(visits):
    api, tab = visits.of("api"), visits.arrive("tab", TOKEN)
    folders = [visit.begin_run().folder for visit in (api, tab)]
    for session in ("api", "tab"):
        visits.leave(session)
    assert not folders[0].exists() and folders[1].exists()
    assert wait_until(lambda: not folders[1].exists()) and tab.runs[0].stop.is_set()


def test_a_tab_that_comes_back_in_time_keeps_its_visit(visits):
    tab = visits.arrive("before", TOKEN)
    folder = tab.begin_run().folder
    visits.leave("before")
    assert visits.arrive("after", TOKEN) is tab
    assert not wait_until(lambda: not folder.exists(), 0.8)
    assert visits.arrive("stranger", OTHER) is not tab
    for hostile in (None, "", "x" * 32, 5, [TOKEN], TOKEN + "0", TOKEN.upper() + "\n"):
        assert visits.arrive("stranger", hostile) is not tab


def test_uploads_of_who_leaves_are_deleted_unless_somebody_else_sent_the_same(visits, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(visits.folder))
    paths = []
    for name in ("a" * 64, "b" * 64):
        (visits.folder / name).mkdir()
        paths.append(visits.folder / name / "a.png")
        paths[-1].write_bytes(b"x")
        visits.of("one").own(paths[-1])
    visits.of("two").own(paths[1])
    visits.leave("one")
    assert [path.exists() for path in paths] == [False, True]
    visits.leave("two")
    assert not paths[1].exists()


def test_paths_that_a_browser_makes_up_are_never_deleted(visits, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(visits.folder))
    other = visits.of("other").begin_run().folder
    (other / "a.png").write_bytes(b"x")
    (visits.folder / "x.png").write_bytes(b"x")
    up = visits.folder / ("c" * 64) / ".." / other.relative_to(visits.folder) / "a.png"
    for path in (other / "a.png", other.parent / "x.png", visits.folder / "x.png", up, Path("/etc/passwd"), Path("x")):
        visits.of("one").own(path)
    assert not visits.of("one").uploads
    visits.leave("one")
    assert (other / "a.png").exists() and (visits.folder / "x.png").exists()


def test_a_port_in_use_is_a_clear_error(demo):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="port"):
            Server(demo, ServerSettings(port=taken.getsockname()[1]))


def test_a_page_at_rest_rests(demo_server, monkeypatch):
    queue = demo_server.blocks._queue
    looks = []
    monkeypatch.setattr(type(queue), "__len__", lambda queue: looks.append(1) or 0)
    time.sleep(0.5)
    assert 1 <= len(looks) < 100, "gradio's own queue looks for events some 450 times in that time"


def test_the_command_line_has_the_page():
    parser = argparse.ArgumentParser()
    cli.add_parser(parser.add_subparsers())
    chosen = parser.parse_args(["page", "--port", "0", "--models", "one", "--models", "two", "--offline"])
    assert (chosen.port, chosen.models, chosen.server_name) == (0, ["one", "two"], "127.0.0.1")
    with pytest.raises(InputError, match="70000"):
        cli.run(parser.parse_args(["page", "--port", "70000"]))
    assert cli.parse_auth("me:a:b") == ("me", "a:b")
    for wrong in ("", "me", "me:", ":secret"):
        with pytest.raises(InputError, match="USER:PASSWORD") as error:
            cli.run(parser.parse_args(["page", "--auth", wrong]))
        assert "secret'" not in str(error.value)
