"""Transparency networks read from their files, ready to use."""

from __future__ import annotations

from pathlib import Path

import torch

from ..bases import CodecRule
from ..files.codec_parts import part_tensors
from ..files.weights import WeightFile
from .codec import TransparencyCodec


def read_codec(
    path: str | Path,
    part: str,
    rule: CodecRule | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> TransparencyCodec:
    """The "decoder" or "encoder" in a file; where its metadata do not say their rule, it is `rule`, that of its base.

    A decoder is moved to `device` and `dtype`, an encoder to `device` alone.
    """
    with WeightFile(path) as file:
        said = CodecRule.from_metadata(file.metadata, rule)
        return TransparencyCodec.from_state_dicts(
            **{part: part_tensors(file, part)}, rule=said, device=device, dtype=dtype
        )
