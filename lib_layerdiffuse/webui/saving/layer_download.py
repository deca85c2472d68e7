"""The last set of layers of a page as a file: what the buttons under the gallery fetch."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from ...core.errors import InputError, LayerDiffuseError
from ...files.names import slug
from ...sets.formats import Packed, pack_set
from ...sets.save_options import DEFAULT, SaveOptions
from .last_sets import LastSets

ADDRESS = "/internal/layerdiffuse/layers"
NOTES = "X-LayerDiffuse-Notes"  # a header with what a user should know, quoted as in addresses
MIMETYPES = {".psd": "image/vnd.adobe.photoshop", ".ora": "image/openraster", ".zip": "application/zip"}


def last_sets() -> LastSets:
    """The sets that the WebUI's script keeps."""
    from ..script import LayerDiffuseScript

    return LayerDiffuseScript.sets


def packed(visitor: str, tab: str, picture: str, kind: str, recomposite: bool) -> tuple[Packed, str]:
    """A page's last set, or that of a picture, as a file, and the file's name; InputError before there is one."""
    found = last_sets().get(visitor, tab, picture)
    if found is None:
        raise InputError("no layers of this page", "a set that was made in this tab", "generate with the box ticked")
    layers, name = found
    made = pack_set(layers, kind, SaveOptions(recomposite=recomposite))
    return made, f"{slug(name)}{made.suffix}"


def layers(visitor: str = "", tab: str = "", picture: str = "", kind: str = DEFAULT, recomposite: bool = False) -> Any:
    """A file, or what went wrong."""
    from starlette.responses import JSONResponse, Response

    try:
        made, name = packed(visitor, tab, picture, kind, recomposite)
    except LayerDiffuseError as error:
        return JSONResponse({"got": error.got, "expected": error.expected, "what_to_do": error.what_to_do}, 422)
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}",
        NOTES: quote("; ".join(made.notes)),
    }
    return Response(made.content, media_type=MIMETYPES[made.suffix], headers=headers)


def add_routes(_page: Any, app: Any) -> None:
    """The WebUI's on_app_started."""
    app.add_api_route(ADDRESS, layers, methods=["GET"], include_in_schema=False)
