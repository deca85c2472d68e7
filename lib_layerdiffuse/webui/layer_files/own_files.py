"""Layer files of the user's own in a WebUI: what the drop-downs offer, and what a job uses."""

from __future__ import annotations

from dataclasses import replace

from ...core.errors import BaseMismatchError
from ...core.files.codec_parts import DECODER, ENCODER
from ...core.files.layer_files import METHOD
from ...core.methods import Method
from ...core.offsets.install import parameter_shapes
from ...files.layer_catalogue import Catalogue, Loaded
from ...files.layer_choice import Chooser, OwnFiles
from ...form.arguments import LayerArguments
from ..host.host import host_of, loaded_model
from ..jobs.request import Request
from ..page.options import read_options
from .downloads import HostLayerFiles

ARGUMENTS = {METHOD: "method_file", DECODER: "decoder_file", ENCODER: "encoder_file"}


def choose(request: Request, loaded: Loaded) -> tuple[Method, OwnFiles, LayerArguments]:
    """Method, files and arguments of a job: names in the arguments become those of an infotext, with a checksum."""
    arguments, row = request.arguments, request.arguments.method_row
    wishes = {part: getattr(arguments, name) for part, name in ARGUMENTS.items()}
    chooser = Chooser(request.networks.catalogue, request.files, loaded, request.note)
    method, chosen = chooser.choose(wishes, row if isinstance(row, Method) else None)
    told = {name: chosen.told.get(part, "") for part, name in ARGUMENTS.items()}
    return method, chosen, replace(arguments, method=method.id, **told)


def offered(catalogue: Catalogue, argument: str, method: Method | None) -> list[str]:
    """Names of the files for an argument that fit the loaded checkpoint, and the method where one is chosen."""
    part = next(part for part, name in ARGUMENTS.items() if name == argument)
    return catalogue.offered(HostLayerFiles(read_options()).choice_folders(), part, what_is_loaded(), method)


def what_is_loaded() -> Loaded:
    """The WebUI's loaded checkpoint; nothing known while there is none, or one without methods."""
    model = loaded_model()
    try:
        return Loaded() if model is None else Loaded(host_of(model).base, shapes_of(model))
    except BaseMismatchError:
        return Loaded()


def shapes_of(model: object) -> dict[str, tuple[int, ...]]:
    """The parameters of a model's UNet."""
    return parameter_shapes(dict(host_of(model).unet.named_modules()))
