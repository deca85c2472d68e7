"""`layers-report`: how well the layers fit together that a model paints of prompts, beside plain pictures of them."""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from ...cli.options import Subparsers, add_model_options, model_settings
from ...files.whole_files import check_folder, write_whole
from ...form.ranges import Range, file_option, path_option
from ...standalone.settings import GenerateSettings
from ..layer_sets.layer_captions import PROMPTS_FORM

COUNT, GRID = Range(1, 10_000, whole=True), Range(1, 256, whole=True)
SEED, STEPS, GUIDANCE = Range(0, 2**31, whole=True), Range(1, 1000, whole=True), Range(0, 100)
DESCRIPTION = """Paint sets of layers of held-out things in scenes, and measure whether they fit: foreground over
background against the blended picture, given layers kept in it, foregrounds that are neither empty nor everything; each
figure also for plain pictures of the same prompts and seeds, painted without the method."""


def add_parser(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "layers-report", help="measure how well painted layers fit together", description=DESCRIPTION
    )
    held_out = "default: things and scenes that the demo model never saw together"
    parser.add_argument("--prompts", type=file_option, metavar="FILE", help=f"{PROMPTS_FORM}; {held_out}")
    parser.add_argument(
        "--count", type=COUNT.parse, default=64, metavar="N", help="at most so many prompts (default 64)"
    )
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help="ids; default: all layer methods that are there")
    parser.add_argument("--seed", type=SEED.parse, default=1, metavar="N", help="seed of the first set (default 1)")
    parser.add_argument("--steps", type=STEPS.parse, default=20, metavar="N", help="sampling steps (default 20)")
    parser.add_argument("--guidance", type=GUIDANCE.parse, metavar="X", help="guidance; default: the model's own")
    parser.add_argument("--grid", type=GRID.parse, default=32, metavar="N", help="sets of a grid (default 32)")
    out_help = "where figures.json, table.md and a grid for each method go (default layers-report)"
    parser.add_argument("--out", type=path_option, default="layers-report", metavar="FOLDER", help=out_help)
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Check what can be checked, load, paint, measure, write, and show the table."""
    folder = check_folder(arguments.out)
    settings = GenerateSettings(
        "-", seed=arguments.seed, steps=arguments.steps, guidance=arguments.guidance, passes=1, count=1
    )
    from tqdm.auto import tqdm

    from ... import api
    from ..layers import layers_report

    prompts = read(arguments, layers_report)
    host = api.load(model_settings(arguments))
    methods = layers_report.methods_of(host, arguments.methods)
    painter = layers_report.SetPainter(host, settings)
    bar = partial(tqdm, desc="sets", unit="", file=sys.stderr)
    reports = layers_report.report_on(painter, methods, prompts, arguments.grid, bar)
    write(folder, reports, told(arguments, host, len(prompts)))


def read(arguments: argparse.Namespace, layers_report: Any) -> list[Any]:
    """The prompts of the file, or the demo model's held-out ones."""
    if arguments.prompts is not None:
        return layers_report.read_prompts(Path(arguments.prompts))[: arguments.count]
    return layers_report.held_out_prompts(arguments.demo, arguments.count)


def told(arguments: argparse.Namespace, host: Any, prompts: int) -> dict[str, Any]:
    """What the figures were measured on."""
    options = {name: getattr(arguments, name) for name in ("seed", "steps", "guidance")}
    return {"model": host.name, "base": host.base, "prompts": prompts, **options}


def write(folder: Path, reports: list[Any], measured_on: dict[str, Any]) -> None:
    """Figures, table and grids into the folder; the table on the screen too."""
    from ..layer_sets.set_grids import grid_of_sets
    from ..layers.layers_report import table

    figures = {report.method.id: report.figures() for report in reports}
    shown = table(figures)
    folder.mkdir(parents=True, exist_ok=True)
    whole = json.dumps({**measured_on, "methods": figures}, indent=2) + "\n"
    write_whole(folder / "figures.json", lambda path: path.write_text(whole, encoding="utf-8"))
    write_whole(folder / "table.md", lambda path: path.write_text(shown, encoding="utf-8"))
    for report in reports:
        grid = grid_of_sets([(painted.prompt, painted.layers) for painted in report.kept])
        write_whole(folder / f"{report.method.id}.png", lambda path, grid=grid: grid.save(path, "PNG"))
    sys.stdout.write(shown)
