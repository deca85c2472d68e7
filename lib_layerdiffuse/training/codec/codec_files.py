"""The files of a trained codec in the published layouts.

Two files as for SD1.5 and SDXL, or one that holds both, as for Flux, with the conventions of the published one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ...core.bases import BASES, CodecFiles, CodecRule, LatentSpace
from ...core.errors import WeightsError
from ...core.files.codec_parts import DECODER, ENCODER, PARTS, prefix_of
from ...core.files.layer_files import CODEC, metadata_of
from ...core.files.weights import SUFFIX
from ...files.whole_files import save_tensors
from ..settings import CODEC_LAYOUTS

ENCODER_STEM, DECODER_STEM = "vae_transparent_encoder", "vae_transparent_decoder"
AUTO, SEPARATE, COMBINED = CODEC_LAYOUTS
LAYOUTS = {SEPARATE: CodecFiles(DECODER_STEM, ENCODER_STEM), COMBINED: BASES["flux"].codec}
State = Mapping[str, torch.Tensor]


def layout_for(space: LatentSpace, wish: str = AUTO) -> CodecFiles:
    """The layout that is wished for, or that of the base with such latents; combined for other latents of its size."""
    if wish != AUTO:
        return LAYOUTS[wish]
    base = BASES.get(space.base)
    together = base.decoder == base.encoder if base else space.channels == BASES["flux"].latents.channels
    return LAYOUTS[COMBINED if together else SEPARATE]


def write_codec(
    states: Mapping[str, State], layout: CodecFiles, rule: CodecRule, space: LatentSpace, folder: Path, prefix: str
) -> None:
    """Decoder and encoder by part into the files of a layout, `prefix` put before their names."""
    if layout.decoder == layout.encoder:
        together = {f"{part}.{key}": tensor for part in PARTS for key, tensor in states[part].items()}
        said = rule.metadata() | metadata_of(CODEC, space)
        save_tensors(together, folder / f"{prefix}{layout.decoder}{SUFFIX}", said)
        return
    for part, stem in ((DECODER, layout.decoder), (ENCODER, layout.encoder)):
        save_tensors(states[part], folder / f"{prefix}{stem}{SUFFIX}", rule.metadata() | metadata_of(part, space))


def read_codec_files(folder: str | Path) -> tuple[dict[str, State], CodecRule]:
    """Decoder and encoder by part, float32, of the one codec in `folder`, whatever its layout, and its rule."""
    together = sorted(Path(folder).glob(f"*{LAYOUTS[COMBINED].decoder}{SUFFIX}"))
    if together and not list(Path(folder).glob(f"*{ENCODER_STEM}{SUFFIX}")):
        layout, paths = LAYOUTS[COMBINED], dict.fromkeys(PARTS, find_codec_file(folder, LAYOUTS[COMBINED].decoder))
    else:
        layout, stems = LAYOUTS[SEPARATE], {ENCODER: ENCODER_STEM, DECODER: DECODER_STEM}
        paths = {part: find_codec_file(folder, stem) for part, stem in stems.items()}
    read = {part: _read(path, part) for part, path in paths.items()}
    return {part: state for part, (state, _) in read.items()}, CodecRule.from_metadata(read[ENCODER][1], layout.rule)


def find_codec_file(folder: str | Path, stem: str) -> Path:
    """The one file of a codec in `folder` whose name ends in `stem`, whatever its prefix; WeightsError otherwise."""
    found = sorted(Path(folder).glob(f"*{stem}{SUFFIX}"))
    if len(found) != 1:
        raise WeightsError(
            got=f"{len(found)} files *{stem}{SUFFIX} in {folder}",
            expected="exactly one",
            what_to_do="name the folder that `train codec` wrote",
        )
    return found[0]


def _read(path: Path, part: str) -> tuple[State, dict[str, str]]:
    try:
        with safe_open(str(path), framework="pt") as file:
            prefix = prefix_of(dict.fromkeys(file.keys()), part)
            keys = [key for key in file.keys() if key.startswith(prefix)]
            return {key[len(prefix) :]: file.get_tensor(key).float() for key in keys}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: {error}", "a whole safetensors file", "write or download it again") from error
