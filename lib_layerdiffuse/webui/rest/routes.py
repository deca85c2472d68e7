"""The routes themselves: short functions that answer with the tables of this program and its codec."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from fastapi import APIRouter, HTTPException

from ... import __version__
from ...core.bases import BASES, SD_HUB
from ...core.errors import (
    BaseMismatchError,
    InputError,
    LayerDiffuseError,
    MissingExtraError,
    OutputError,
    WeightsError,
)
from ...core.files.weights import SUFFIX
from ...core.methods import Method, stems_of
from ...form.arguments import describe
from ...form.values import image_to_base64
from ...form.ways import Way, steps_of, ways_for
from ...sets.chains import FRAMES, Chain
from ..finding import answers
from ..host.host import WebuiHost, computing_device, host_name, host_of, loaded_base, loaded_model
from ..host.modules import host_module
from ..jobs.networks import Networks
from ..layer_files.downloads import HostLayerFiles
from ..layer_files.transfers import TRANSFERS, Busy, checked_stems, listed
from ..page.options import read_options
from . import layers, pixels, schemas
from .access import guards

STATUS: tuple[tuple[type, int], ...] = (
    (Busy, 409),
    (BaseMismatchError, 409),
    (InputError, 422),
    (WeightsError, 404),
    (OutputError, 507),
    (MissingExtraError, 501),
)
TABS = ("txt2img", "img2img")
ANSWERS: dict[int | str, dict[str, Any]] = {code: {"description": text} for code, text in schemas.STATUS_TEXTS.items()}


def typed(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """An endpoint whose typed errors are answers: got, expected and what to do."""

    @functools.wraps(endpoint)
    def call(*arguments: Any, **named: Any) -> Any:
        try:
            return endpoint(*arguments, **named)
        except LayerDiffuseError as error:
            code = next((code for kind, code in STATUS if isinstance(error, kind)), 500)
            raise HTTPException(code, problem(error)) from error

    return call


def problem(error: LayerDiffuseError) -> dict[str, str]:
    """An error as an answer."""
    return {"got": error.got, "expected": error.expected, "what_to_do": error.what_to_do}


def router() -> APIRouter:
    """All routes, behind the WebUI's own names and passwords."""
    made = APIRouter(prefix="/layerdiffuse/v1", tags=["LayerDiffuse"], dependencies=guards(), responses=ANSWERS)
    for method, path, endpoint, model in ROUTES:
        made.add_api_route(path, typed(endpoint), methods=[method], response_model=model, summary=endpoint.__doc__)
    return made


def version() -> dict[str, Any]:
    """The extension's version, the WebUI's family and the loaded base"""
    model = loaded_model()
    return {"version": __version__, "host": host_name(model), "base": loaded_base()}


def schema() -> list[dict[str, Any]]:
    """The arguments of a job, in the order of a list"""
    return describe()


def methods(base: str | None = None) -> list[dict[str, Any]]:
    """The layer methods, of one base or of all, and the chains of them"""
    ways = ways_for(None if base is None else known(base))
    return [row_of(way) for way in sorted(ways, key=lambda way: isinstance(way, Chain))]


def row_of(way: Way) -> dict[str, Any]:
    """A method or chain as data; its frames in the order of a result."""
    names = ("id", "label", "title", "mode", "base", "transparent_frames")
    frames = [frame for frame in FRAMES if frame in way.frames] if isinstance(way, Chain) else list(way.frames)
    lists = {"frames": frames, "images": list(way.images), "steps": [method.id for method in steps_of(way)]}
    stems = [stem for method in steps_of(way) for stem in stems_for(method)]
    return {name: getattr(way, name) for name in names} | lists | {"files": list(dict.fromkeys(stems))}


def stems_for(method: Method) -> list[str]:
    """The files of a method."""
    stems = [method.weights, *([method.decoder] if method.transparent_frames else [])]
    return [stem + SUFFIX for stem in stems]


def files(base: str | None = None) -> dict[str, Any]:
    """Layer files of a base: which are there, and the download that is under way"""
    found = HostLayerFiles(read_options())
    rows, hub = [file._asdict() for file in listed(found, known(base))], BASES[known(base)].hub or SD_HUB
    told = {"repository": hub.repository, "licence": hub.licence, "folder": str(found.download_folder())}
    return {**told, "files": rows, "transfer": transfer()}


def fetch(request: schemas.FetchRequest) -> dict[str, Any]:
    """Download layer files in the background"""
    base, found = known(request.base), HostLayerFiles(read_options())
    wanted = list(stems_of(base)) if request.names is None else checked_stems(request.names, base)
    TRANSFERS.start([stem for stem in wanted if found.present(stem) is None])
    return transfer()


def transfer() -> dict[str, Any]:
    """The download that is under way, or the last one"""
    last = TRANSFERS.last
    error = None if last.error is None else problem(last.error)
    return {"running": last.running, "doing": last.textinfo, "done": list(last.done), "error": error}


def stop() -> dict[str, Any]:
    """Stop the download; what has arrived is kept"""
    TRANSFERS.last.stop()
    TRANSFERS.last.wait(5)
    return transfer()


def encode(request: schemas.EncodeRequest) -> dict[str, Any]:
    """A picture with transparency to a latent that carries it"""
    picture = pixels.picture_of(request.image)
    with at_work() as (host, networks):
        codec = networks.encoder(HostLayerFiles(read_options()), host.base)
        latent, seen = pixels.encode(host, codec, picture)
        told = {"base": host.base, "width": picture.width, "height": picture.height}
        return {**told, "latent": pixels.as_safetensors(latent, host.base), "image": image_to_base64(seen)}


def decode(request: schemas.DecodeRequest) -> dict[str, Any]:
    """Latents to pictures with transparency"""
    with at_work() as (host, networks):
        latents = pixels.latents_of(request.latent, host.base)
        codec = networks.decoder(HostLayerFiles(read_options()), host.base)
        made = pixels.decode(host, codec, latents, request.passes)
        box = (0, 0, request.width or made[0].width, request.height or made[0].height)
        if not 0 < box[2] <= made[0].width or not 0 < box[3] <= made[0].height:
            size = f"{made[0].width}x{made[0].height}"
            raise InputError(f"a size of {box[2]}x{box[3]}", f"at most the {size} of the latent", "correct the size")
        return {"base": host.base, "images": [image_to_base64(picture.crop(box)) for picture in made]}


def find_out(request: schemas.FindOutRequest) -> dict[str, Any]:
    """The API's last job again, shorter, with one thing changed at a time: why there is no alpha"""
    from ..script import LayerDiffuseScript

    if request.tab not in TABS:
        raise InputError(f"the tab {request.tab[:40]!r}", f"one of {', '.join(TABS)}", "correct the name")
    return answers.for_api(LayerDiffuseScript.recipes, request.tab)


@contextlib.contextmanager
def at_work() -> Iterator[tuple[WebuiHost, Networks]]:
    """The loaded model and the networks of the jobs, in the WebUI's queue, without gradients."""
    from ..script import LayerDiffuseScript

    networks = LayerDiffuseScript.networks
    with host_module("call_queue").queue_lock, torch.no_grad():
        try:
            yield host_of(host_module("shared").sd_model), networks
        finally:
            networks.rest(computing_device())


def known(base: str | None) -> str:
    """The id of a base; of none, the loaded checkpoint's. InputError for another id."""
    base = loaded_base() if base is None else base
    if base not in BASES:
        got = f"the base {base[:40]!r}" if base else "no checkpoint with layer methods"
        raise InputError(got, f"one of {', '.join(BASES)}", "name the base, or load a checkpoint of one")
    return base


Route = tuple[str, str, Callable[..., Any], Any]
ROUTES: tuple[Route, ...] = (
    ("GET", "/version", version, schemas.Version),
    ("GET", "/schema", schema, list[schemas.ArgumentRow]),
    ("GET", "/methods", methods, list[schemas.MethodRow]),
    ("GET", "/files", files, schemas.Files),
    ("POST", "/files/transfer", fetch, schemas.Transfer),
    ("GET", "/files/transfer", transfer, schemas.Transfer),
    ("DELETE", "/files/transfer", stop, schemas.Transfer),
    ("POST", "/encode", encode, schemas.Encoded),
    ("POST", "/decode", decode, schemas.Decoded),
    ("POST", "/find-out", find_out, schemas.FoundOut),
    ("POST", "/export", layers.export, schemas.Exported),
    ("POST", "/import", layers.import_file, schemas.Imported),
)
