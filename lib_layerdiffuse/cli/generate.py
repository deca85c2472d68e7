"""`generate`: prompts in, PNG files with alpha and a contact sheet out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from ..form.ranges import path_option, text_option
from ..standalone.settings import GenerateSettings
from . import export, options

EXAMPLES = """examples:
  generate "a red apple" -n 4 --seed 1 --out out/
  generate "a glass of water" "a cloud" --steps 30
  generate "a cat" --checkpoint sdxl.safetensors --models /path/to/webui/models
  generate "in a forest" --checkpoint sd15.safetensors --mode from-foreground --foreground cat.png
  generate "in a forest" --checkpoint sdxl.safetensors --chain from-foreground --foreground cat.png"""


def add_parser(subparsers: options.Subparsers) -> None:
    """Add the command `generate`."""
    parser = subparsers.add_parser(
        "generate",
        usage="%(prog)s PROMPT [PROMPT ...] [options]",
        help="pictures with alpha from prompts",
        description="Paint RGBA pictures from prompts. Without --checkpoint the small demo model is used.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    prompt_help = "what the picture shows; several prompts make several sets"
    parser.add_argument("prompt", nargs="+", type=text_option, help=prompt_help)
    out_help = "where the pictures go (default out)"
    parser.add_argument("--out", default="out", type=path_option, metavar="FOLDER", help=out_help)
    size_help = "in pixels, such as 512x768; default: the model's own"
    parser.add_argument("--size", type=options.size_option, metavar="WxH", help=size_help)
    parser.add_argument("--plain", action="store_true", help="the ordinary opaque picture, without the method")
    options.add_options(parser, "what to paint", options.WHAT, GenerateSettings)
    options.add_options(parser, "how to paint", options.HOW, GenerateSettings)
    options.add_options(parser, "images in, and layers", options.IMAGES, GenerateSettings)
    options.add_options(parser, "a ControlNet", options.CONTROL, GenerateSettings)
    options.add_options(parser, "layer files of one's own", options.FILES, GenerateSettings)
    layers = "; each set also as such a file, beside its pictures"
    export.add_format(parser, None, layers)
    export.add_layer_options(parser)
    options.add_model_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Check everything that can be checked without a model, then load, paint, write, and say where the pictures are."""
    settings, notes = options.generate_settings(arguments).validated()
    chosen = export.checked_options(arguments)
    from .. import api

    api.require_standalone()
    from ..standalone.outputs import PictureFolder

    folder = PictureFolder(arguments.out)  # told now rather than after the painting
    with ProgressBar() as progress:
        model = options.model_settings(arguments)
        pictures = api.generate(settings, model=model, progress=progress, on_picture=folder.save)
    sheet = folder.save_sheet(pictures.items)
    layered = pictures.save_layers(arguments.out, arguments.format, chosen) if arguments.format else []
    told = [f"{saved.path.name}: {note}" for saved in layered for note in saved.notes]
    sys.stderr.writelines(f"note: {note}\n" for note in [*notes, *pictures.notes, *told])
    plural = "picture" if len(pictures) == 1 else "pictures"
    names = ", ".join([f"{len(pictures)} {plural}", *(saved.path.name for saved in layered)])
    sys.stdout.write(f"{names} and {sheet.name} are in {folder.folder.resolve()}\n")


class ProgressBar:
    """A bar on stderr as a context; what it gives is a callback (fraction in [0,1], text)."""

    def __enter__(self) -> Callable[[float, str], None]:
        from tqdm import tqdm

        layout = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
        self.bar = tqdm(total=1.0, bar_format=layout, file=sys.stderr, leave=True)
        return self.show

    def show(self, fraction: float, text: str) -> None:
        changed = text != self.bar.desc
        self.bar.set_description_str(text, refresh=False)
        drawn = self.bar.update(max(0.0, min(1.0, fraction) - self.bar.n))
        if changed and not drawn:  # tqdm draws by the clock, and a short step would never be named
            self.bar.refresh()

    def __exit__(self, *_: object) -> None:
        self.bar.refresh()
        self.bar.close()
