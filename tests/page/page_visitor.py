"""Shared by the page's tests: values of the form, a browser tab with a visitor, and a caller without a browser."""

from __future__ import annotations

import http.cookiejar
import io
import json
import secrets
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

CONTROL = {"control_image": None, "draw_lines": True, "control_strength": 1.0}  # no picture is followed
PATIENCE = 60_000  # milliseconds; a busy machine is slow, a broken page is for ever


def settings(**choices) -> dict:
    """Values of the form's own fields for a short run."""
    plain = {"prompt": "red apple", "count": 1, "seed": 5, "steps": 1, "guidance": 1.0, "width": 64, "height": 64}
    return plain | {"clear_haze": True, "negative_prompt": "", "init": None, "denoise": 0.75} | CONTROL | choices


def read_png(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


class Visitor:
    """A browser tab on the page, and what a visitor does with it."""

    def __init__(self, browser, server, suffix: str = ""):
        self.foreign: list[str] = []
        self.errors: list[str] = []
        self.tab = browser.new_page()
        self.tab.set_default_timeout(PATIENCE)
        self.tab.on("request", lambda request: self.note(request.url, server.url))
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.goto(server.url + suffix)
        self.tab.wait_for_selector("#page_generate")

    def note(self, url: str, own: str) -> None:
        if not url.startswith((own, "data:", "blob:")):
            self.foreign.append(url)

    def fill_in(self, prompt: str, count: int = 2, steps: int = 2) -> None:
        self.tab.fill("#page_prompt textarea", prompt)
        self.tab.fill("#page_count input[type=number]", str(count))
        self.open_more()
        self.tab.fill("#page_steps input[type=number]", str(steps))
        self.tab.keyboard.press("Tab")

    def open_more(self) -> None:
        if not self.tab.is_visible("#page_steps input[type=number]"):
            self.tab.click("#page_more > button")

    def generate(self) -> None:
        """Press the button and wait for the files of the new run; a fast run may never draw its progress bar."""
        link = "(document.querySelector('#page_files a')?.href ?? '')"
        before = self.tab.evaluate(f"() => {link}")
        self.tab.click("#page_generate")
        self.tab.wait_for_function(f"before => {link} && {link} !== before", arg=before)
        self.tab.wait_for_selector("#page_generate:not([disabled])")
        self.tab.wait_for_selector("#page_zip", state="visible")

    def wait_for_pictures(self, count: int) -> None:
        self.tab.wait_for_function(
            "count => document.querySelectorAll('#page_gallery .gallery-item img').length === count", arg=count
        )

    def download(self, selector: str) -> tuple[str, bytes]:
        with self.tab.expect_download() as waiting:
            self.tab.click(selector)
        return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()

    def message(self) -> str:
        return self.tab.inner_text("#page_messages")


class Caller:
    """Calls the page's events over HTTP as its scripts do, with any values."""

    def __init__(self, url: str):
        self.url, self.session = url.rstrip("/"), secrets.token_hex(6)
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), cookies)
        self.config = json.loads(self.get("/config"))
        self.names = {part["id"]: part["props"].get("elem_id") for part in self.config["components"]}

    def get(self, path: str) -> bytes:
        return self.opener.open(self.url + path, timeout=60).read()

    def post(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"content-type": "application/json"}
        )
        return json.loads(self.opener.open(request, timeout=60).read())

    def upload(self, name: str, data: bytes) -> dict[str, Any]:
        """Sends a file as a picture field does; its value in a call."""
        edge = "edgeofthepart"
        head = f'--{edge}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        body = head.encode() + data + f"\r\n--{edge}--\r\n".encode()
        kind = {"content-type": f"multipart/form-data; boundary={edge}"}
        request = urllib.request.Request(f"{self.url}/gradio_api/upload", body, kind)
        path = json.loads(self.opener.open(request, timeout=60).read())[0]
        return {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}

    def event(self, element: str, name: str) -> dict[str, Any]:
        """The row of the page's configuration for an event of an element."""
        for row in self.config["dependencies"]:
            if any(self.names.get(part) == element and event == name for part, event in row["targets"]):
                return row
        raise LookupError(f"{element}.{name}")

    def config_value(self, part: int) -> Any:
        """What stands in a component at first."""
        return next(row["props"].get("value") for row in self.config["components"] if row["id"] == part)

    def fields(self, element: str, event: str) -> list[str | None]:
        """Ids of the elements that an event sends, in order."""
        return [self.names[part] for part in self.event(element, event)["inputs"]]

    def call(self, element: str, event: str, data: list[Any], event_data: Any = None) -> dict[str, Any]:
        """The last answer to an event."""
        row = self.event(element, event)
        body = {"data": data, "fn_index": row["id"], "session_hash": self.session, "event_data": event_data}
        wanted = self.post("/gradio_api/queue/join", body)["event_id"]
        ends = ("process_completed", "unexpected_error", "server_stopped")
        return next(m for m in self.messages() if m["msg"] in ends and m.get("event_id") in (wanted, None))

    def messages(self) -> Iterator[dict[str, Any]]:
        with self.opener.open(f"{self.url}/gradio_api/queue/data?session_hash={self.session}", timeout=120) as stream:
            for line in stream:
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])

    def said(self, answer: dict[str, Any], element: str, event: str) -> str:
        """What a visitor reads after an answer: gradio's own error, or the page's messages."""
        output = answer["output"]
        if not answer["success"]:
            return str(output.get("error"))
        places = [self.names[part] for part in self.event(element, event)["outputs"]]
        update = output["data"][places.index("page_messages")]
        return str(update.get("value") or "")
