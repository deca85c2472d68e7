"""Every field of the page with hostile values, sent as the page's scripts send them: a typed message, no traceback."""

from __future__ import annotations

import io
import random
import struct
import time
import urllib.error
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from page_visitor import Caller, settings
from PIL import Image

gradio = pytest.importorskip("gradio", minversion="6.0")
pytest.importorskip("tiny", reason="needs the standalone extra")

from lib_layerdiffuse.form.arguments import ARGUMENTS, BY_NAME, visible_arguments  # noqa: E402
from lib_layerdiffuse.form.ways import find_way  # noqa: E402
from lib_layerdiffuse.page.server import Server, ServerSettings  # noqa: E402

NAMES = list(settings())
GENERATE = ("page_generate", "click")
FILE = {"_type": "gradio.FileData"}
DEEP: list = []
for _ in range(200):
    DEEP = [DEEP]
HOSTILE = (
    None, "", " ", "\0", "nan", "inf", "-inf", "1e999", -1, 1e308, 10**30, 2**64, -(2**63), 0.5, 1e-320, True, False,
    [], {}, [[]], DEEP, {"path": "/etc/passwd"}, {"path": "/etc/passwd", "meta": FILE}, {"path": None, "meta": FILE},
    {"path": "../../etc/passwd", "meta": FILE}, {"path": "http://127.0.0.1:9/x.png", "meta": FILE},
    {"path": "x", "url": "http://127.0.0.1:9/x.png", "meta": FILE}, {"path": ["a"], "meta": FILE}, {"image": "x"},
    {"__type__": "update", "value": 1}, "A" * 100_000, "ünïcödé 🐱 \u202e", "'; DROP TABLE",
    "<script>alert(1)</script>",
    "../../etc/passwd", "\ud800", "<lora:none:1>", "(((", "🐱" * 80, "data:image/png;base64,AAAA",
)  # fmt: skip
PICTURES = ("init", "control_image", "fg_image", "bg_image", "blend_image")


def typed(text: str) -> bool:
    """Whether a message says what was got, what was expected and what to do."""
    words = ("got ", "expected", "what to do")
    return all(word in text.lower() for word in words) and "Something went wrong" not in text


def png(size: tuple[int, int] = (8, 8), mode: str = "RGBA", form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, 0 if mode in ("1", "L") else None).save(buffer, form)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header_png(width: int, height: int, body: bytes = b"") -> bytes:
    """A PNG that promises a size and brings `body` instead."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b"")


def text_png() -> bytes:
    """A PNG whose text chunk unpacks to a hundred megabytes."""
    bomb = chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"x" * 100_000_000))
    whole = png()
    return whole[:33] + bomb + whole[33:]


NOISE = bytes(random.Random(1).randrange(256) for _ in range(4000))
FILES = {
    "truncated.png": png((300, 300))[:100],
    "half.png": png((64, 64))[:-40],
    "text.png": b"this is a text",
    "empty.png": b"",
    "bomb.png": header_png(60_000, 60_000, chunk(b"IDAT", zlib.compress(b"\0" * 1000))),
    "large.png": header_png(12_000, 12_000, chunk(b"IDAT", zlib.compress(b"\0" * 1000))),
    "nothing.png": header_png(0, 0),
    "negative.png": header_png(2**31, 2**31),
    "text-bomb.png": text_png(),
    "noise.png": NOISE,
    "noise-after-head.png": png()[:33] + NOISE,
    "page.svg": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    "page.png": b"<html><script>alert(1)</script></html>",
    "broken.jpg": png((64, 64), "RGB", "JPEG")[:200],
    "broken.webp": png((64, 64), "RGBA", "WEBP")[:30],
    "broken.gif": png((64, 64), "L", "GIF")[:20],
    "broken.tiff": png((64, 64), "RGB", "TIFF")[:90],
    "program.exe": b"MZ" + NOISE,
    "name with ünï; 'quotes\".png": b"broken",
}
GOOD_FILES = {
    "one.png": png((1, 1)),
    "tall.png": png((3, 700)),
    "grey.png": png((20, 20), "L"),
    "bits.png": png((20, 20), "1"),
    "sixteen.png": png((20, 20), "I;16"),
    "exif.jpg": b"\xff\xd8\xff\xe1\x00\x16Exif\0\0" + NOISE[:14] + png((8, 8), "RGB", "JPEG")[2:],
    "print.jpg": png((20, 20), "CMYK", "JPEG"),
}


class Page:
    """The page of a model and somebody who sends it anything."""

    def __init__(self, callers: list[Caller], capfd):
        self.callers, self.caller, self.capfd = callers, callers[0], capfd
        accordion = self.caller.fields(*GENERATE)[len(NAMES) :]
        assert accordion == [f"layerdiffuse_{argument.name}" for argument in ARGUMENTS]

    def send(self, usual: str, caller: Caller | None = None, **values) -> tuple[str, dict]:
        """What a visitor reads after Generate with these raw values beside the usual ones, and the answer."""
        caller = caller or self.caller
        layers = {argument.name: argument.default for argument in ARGUMENTS} | {"enabled": True, "method": usual}
        raw = settings() | layers | values
        answer = caller.call(*GENERATE, list(raw.values()))
        return caller.said(answer, *GENERATE), answer

    def check(self, usual: str, name: str, values: Sequence[object]) -> None:
        """Pictures, or a typed message, for each value of a field (bytes are uploaded); nothing in the log.

        By all visitors at once.
        """
        with ThreadPoolExecutor(len(self.callers)) as visitors:
            shares = [values[place :: len(self.callers)] for place in range(len(self.callers))]
            list(visitors.map(lambda caller, share: self._check(caller, usual, name, share), self.callers, shares))
        self.check_log((name, values))

    def _check(self, caller: Caller, usual: str, name: str, values: Sequence[object]) -> None:
        for value in values:
            if isinstance(value, bytes):
                value = caller.upload("picture.png", value)
            text, answer = self.send(usual, caller, **{name: value})
            painted = answer["success"] and answer["output"].get("data", [{}])[self.files_place].get("visible") is True
            assert painted or typed(text), (name, value, text)

    @property
    def files_place(self) -> int:
        names = [self.caller.names[part] for part in self.caller.event(*GENERATE)["outputs"]]
        return names.index("page_files")

    def check_log(self, what: object) -> None:
        out, err = self.capfd.readouterr()
        assert "Traceback" not in out + err and "Error" not in out + err, (what, out + err)

    def check_fine(self, usual: str, **values) -> None:
        """The next ordinary run works."""
        text, answer = self.send(usual, **values)
        assert answer["success"] and answer["output"]["data"][self.files_place]["visible"] is True, text


VISITORS = 4  # each waits for answers most of the time


@pytest.fixture(scope="module")
def callers(demo_server) -> list[Caller]:
    return [Caller(demo_server.url) for _ in range(VISITORS)]


@pytest.fixture
def page(callers, capfd) -> Page:
    return Page(callers, capfd)


# One text, one number and one picture of the form's own fields get every value, the other kinds and one argument of
# each kind every fourth; the others, which the same code reads, share them out: tests/form/test_parsers.py gives it any
# value. --long gives all values to all.
FORM = {"prompt": 1, "width": 1, "init": 1, "seed": 4, "guidance": 4, "clear_haze": 4}
KINDS = {argument.kind: argument.name for argument in visible_arguments(find_way("demo_fg"))}
SHARED = 18
EVERY = dict.fromkeys(KINDS.values(), 4) | FORM


@pytest.mark.parametrize(("place", "name"), enumerate([*NAMES, *BY_NAME]))
def test_every_field_with_hostile_values(page, pytestconfig, place, name):
    every = 1 if pytestconfig.getoption("--long") else EVERY.get(name, SHARED)
    page.check("demo_fg", name, HOSTILE[place % every :: every])
    if every < SHARED:  # the rare values of other fields: after all of them, in the tests below
        page.check_fine("demo_fg")


def test_broken_pictures_are_told_at_upload_and_at_generate(page):
    look = ("page_init", "upload")
    for name, data in FILES.items():
        value = page.caller.upload(name, data)
        answer = page.caller.call(*look, [value])
        assert answer["success"] and typed(page.caller.said(answer, *look)), name
        assert answer["output"]["data"][0] is None, "a broken picture is taken out of its field"
        page.check_log(name)
        text, _ = page.send("demo_fg", init=value)
        assert typed(text) and name.split()[0] in text and "layerdiffuse-page-" not in text, (name, text)
        page.check_log(name)
    page.check_fine("demo_fg")


def test_what_is_too_large_or_elsewhere_is_refused_before_it_is_read(page):
    text, _ = page.send("demo_fg", init=page.caller.upload("large.png", FILES["large.png"]))
    assert "12000x12000" in text and "8192x8192" in text
    text, _ = page.send("demo_fg", init={"path": "http://127.0.0.1:9/x.png", "meta": FILE})
    assert "by its address" in text
    page.check_log("refused")


def test_odd_but_whole_pictures_are_taken(page):
    for name, data in GOOD_FILES.items():
        page.check_fine("demo_fg", init=page.caller.upload(name, data))
        page.check_log(name)


def test_pictures_with_flipped_bytes(page):
    chance = random.Random(7)
    wholes = [png((40, 40)), png((40, 40), "RGB", "JPEG"), png((40, 40), "RGBA", "WEBP"), png((40, 40), "RGB", "TIFF")]
    files = []
    for _ in range(24):
        data = bytearray(chance.choice(wholes))
        for _ in range(chance.choice([1, 5, 40])):
            data[chance.randrange(len(data))] = chance.randrange(256)
        files.append(bytes(data))
    page.check("demo_fg", "init", files)
    page.check_fine("demo_fg")


def test_other_pictures_of_layer_methods(layered, capfd):
    with Server(layered, ServerSettings(port=0)) as server:
        page = Page([Caller(server.url) for _ in range(VISITORS)], capfd)
        page.check("sd15_fg2bg", "fg_image", HOSTILE)
        for name in ("bomb.png", "text.png", "truncated.png"):
            text, _ = page.send("sd15_fg2bg", fg_image=page.caller.upload(name, FILES[name]))
            assert typed(text) and name in text
            page.check_log(name)
        page.check_fine("sd15_fg2bg", fg_image=page.caller.upload("good.png", GOOD_FILES["tall.png"]))


def join_queue(caller, body: dict, patience: float = 60) -> None:
    """Put an event into the page's queue, waiting while it is full: that is an answer too, on a busy machine."""
    end = time.monotonic() + patience
    while True:
        try:
            caller.post("/gradio_api/queue/join", body)
        except urllib.error.HTTPError as error:
            if error.code != 503 or time.monotonic() > end:
                raise
            time.sleep(0.2)
        else:
            return


def test_other_events_with_hostile_values(page, pytestconfig):
    every = 5 if pytestconfig.getoption("--long") else 10
    rows = page.caller.config["dependencies"]
    for place, row in enumerate(rows):
        element, event = next((page.caller.names.get(part), event) for part, event in row["targets"])
        if (element, event) == GENERATE or not row["backend_fn"] or event == "unload":
            continue
        for value in HOSTILE[place % every :: every]:  # each value to many events, and other ones to each
            body = {"data": [value] * len(row["inputs"]), "fn_index": row["id"], "session_hash": page.caller.session}
            join_queue(page.caller, body | {"event_data": value})
    ends = [m for m in page.caller.messages() if m["msg"] == "process_completed"]
    said = [str(answer["output"].get("error")) for answer in ends if not answer["success"]]
    assert [text for text in said if not typed(text)] == []
    page.check_log("other events")
    page.check_fine("demo_fg")


def test_the_wrong_number_of_values_is_told(page):
    for data in ([], [1], [None] * 100):
        answer = page.caller.call(*GENERATE, data)
        assert typed(page.caller.said(answer, *GENERATE)), data
    page.check_log("numbers of values")


def test_addresses_that_the_page_has_no_use_for_are_closed(page):
    closed = [
        "info",
        "info?all_endpoints=true",
        "openapi.json",
        "deep_link?session_hash=x",
        "proxy=http://127.0.0.1:9/",
    ]
    closed = [f"/gradio_api/{name}" for name in (*closed, "runs", "run-history/buckets", "vibe-code", "mcp/")]
    for path in (*closed, "/monitoring", "/monitoring/summary", "/openapi.json", "/docs"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            page.caller.get(path)
        assert refused.value.code == 404, path
    for name in (
        "run/generate",
        "call/generate",
        "call/v2/hint",
        "api/arrive",
        "component_server",
        "process_recording",
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            page.caller.post(f"/gradio_api/{name}", {"data": [], "session_hash": "x"})
        assert refused.value.code == 404, name
    generate = page.caller.event(*GENERATE)["id"]
    with pytest.raises(urllib.error.HTTPError):  # only by the queue
        page.caller.post("/gradio_api/run/predict", {"data": [], "fn_index": generate, "session_hash": "x"})
    assert all(row["api_visibility"] == "private" for row in page.caller.config["dependencies"])


def test_files_outside_the_page_are_not_served(page):
    for path in ("/etc/passwd", str(Path(__file__).resolve()), "../../etc/passwd", f"{Path.cwd()}/pyproject.toml"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            page.caller.get(f"/gradio_api/file={path}")
        assert refused.value.code in (403, 404)


def test_a_large_file_is_refused(page):
    with pytest.raises(urllib.error.HTTPError) as refused:
        page.caller.upload("huge.png", bytes(50 * 2**20 + 1))  # no more, or the answer may come before all is sent
    assert refused.value.code == 413
    page.check_log("large file")
