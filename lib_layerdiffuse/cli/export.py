"""`export`: pictures and layered files in; PSD, OpenRaster, ZIP, WebP or sprite sheets out."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ..core.errors import InputError
from ..form.ranges import Range, path_option, source_option
from ..sets.save_options import DEFAULT, KINDS, MOST_PADDING, SHAPES, SaveOptions
from . import options
from .options import Option

EXAMPLES = """examples:
  export out/ --format psd
  export wall.png cat.png hat.png --format ora --name cat-with-hat
  export picture.psd --format sprites --shape power-of-two
  export out/*-foreground.png out/*-background.png out/*-blended.png --recomposite"""
THRESHOLD, PADDING = Range(1, 255, whole=True), Range(0, MOST_PADDING, whole=True)
WHOLE: dict[str, Any] = {"metavar": "N"}
LAYERS = (
    Option(
        "--trim",
        "trim",
        "cut each layer to what is to be seen of it; it keeps its place (sprites are trimmed unless told otherwise)",
        {"action": argparse.BooleanOptionalAction},
    ),
    Option("--threshold", "threshold", "alpha of 255 that --trim keeps", {"type": THRESHOLD.parse, **WHOLE}),
    Option(
        "--padding",
        "padding",
        "transparent pixels around each layer, in the colours beside them (sprites have 2)",
        {"type": PADDING.parse, **WHOLE},
    ),
    Option("--shape", "shape", "widen layers, or a sprite sheet, to such sides", {"choices": list(SHAPES)}),
    Option("--premultiplied", "premultiplied", "colours times alpha, as some engines want", {"action": "store_true"}),
    Option(
        "--recomposite",
        "recomposite",
        "solve the top layer's colours anew, so that any editor blends the layers to the blended picture",
        {"action": "store_true"},
    ),
    Option("--no-blended", "keep_blended", "leave the hidden blended picture out", {"action": "store_false"}),
)


def add_format(parser: argparse._ActionsContainer, default: str | None, more: str = "") -> None:
    """The option --format."""
    text = f"{', '.join(f'{name}: {title}' for name, title in KINDS.items())}{more}"
    parser.add_argument("--format", choices=list(KINDS), default=default, help=text)


def add_layer_options(parser: argparse.ArgumentParser) -> None:
    """The options that fill SaveOptions."""
    options.add_options(parser, "layers in files", LAYERS, SaveOptions)


def checked_options(arguments: argparse.Namespace) -> SaveOptions:
    """SaveOptions of parsed arguments; InputError where the format cannot have them."""
    options = SaveOptions(**{option.name: getattr(arguments, option.name) for option in LAYERS})
    if arguments.format is not None:
        from ..sets.formats import find_format

        find_format(arguments.format).completed(options)
    return options


def add_parser(subparsers: options.Subparsers) -> None:
    """Add the command `export`."""
    parser = subparsers.add_parser(
        "export",
        help="layers as files for editors and engines",
        description="Save layers as one file. Each PSD, OpenRaster or ZIP file is a set; pictures whose names "
        "end in -foreground, -background and -blended make a set; all others are layers of one set, bottom first.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source_help = "pictures, layered files, or folders of them"
    parser.add_argument("sources", nargs="+", type=source_option, metavar="FILE", help=source_help)
    add_format(parser, DEFAULT, f" (default {DEFAULT})")
    parser.add_argument("--out", default="out", type=path_option, metavar="FOLDER", help="where they go (default out)")
    parser.add_argument("--name", type=path_option, help="name of the file, without its ending; default: its source's")
    add_layer_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Read and write set after set; what is written is told at once. InputError for one name for several sets."""
    from ..files.names import slug
    from ..files.whole_files import check_folder
    from ..sets.formats import save_set
    from ..sets.gathering import gathered

    chosen = checked_options(arguments)
    sets = gathered(arguments.sources)
    if arguments.name and len(sets) > 1:
        raise InputError(f"--name for {len(sets)} sets", "one set", "leave --name out, or name fewer files")
    folder = check_folder(arguments.out)
    for gathering in sets:
        saved = save_set(gathering.read(), folder, slug(arguments.name or gathering.stem), arguments.format, chosen)
        sys.stderr.writelines(f"note: {note}\n" for note in saved.notes)
        sys.stdout.write(f"{saved.path.resolve()}\n")
