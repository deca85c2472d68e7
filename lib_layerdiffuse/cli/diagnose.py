"""`diagnose`: short runs of a job that gives no alpha, in each of which one thing is otherwise."""

from __future__ import annotations

import argparse
import sys

from ..diagnosis.findings import conclude
from ..form.ranges import text_option
from ..standalone.settings import GenerateSettings
from . import options
from .generate import ProgressBar

DESCRIPTION = (
    "Takes the options of `generate` and runs the job again, shorter, as it was and with one thing changed at a time: "
    "weight, files, guidance, steps, sampler, prompt. Shows how much of the alpha is empty, half transparent, opaque, "
    "and what helped."
)


def add_parser(subparsers: options.Subparsers) -> None:
    """Add the command `diagnose`."""
    parser = subparsers.add_parser("diagnose", help="find out why there is no alpha", description=DESCRIPTION)
    parser.add_argument("prompt", nargs="+", type=text_option, help="what the picture shows")
    size_help = "in pixels, such as 512x768; default: the model's own"
    parser.add_argument("--size", type=options.size_option, metavar="WxH", help=size_help)
    groups = {"what to paint": options.WHAT, "how to paint": options.HOW, "images in, and layers": options.IMAGES}
    groups |= {"a ControlNet": options.CONTROL, "layer files of one's own": options.FILES}
    for title, rows in groups.items():
        options.add_options(parser, title, rows, GenerateSettings)
    options.add_model_options(parser)
    parser.set_defaults(run=run, plain=False)


def run(arguments: argparse.Namespace) -> None:
    """Check what can be checked without a model, run, and show the table."""
    settings, _notes = options.generate_settings(arguments).validated()
    from .. import api

    with ProgressBar() as progress:
        findings = api.diagnose(settings, model=options.model_settings(arguments), progress=progress)
    sys.stdout.writelines(f"{line}\n" for line in (*findings, conclude(findings)))
