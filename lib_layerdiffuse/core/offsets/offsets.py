"""Offsets of a UNet's parameters, low-rank or full: read from files, checked, merged by the numbers, and written.

Keys are `diffusion_model.<path>.<weight|bias>::<lora|diff>::<index>` with LDM paths. The strength s scales them:
W + s * (up @ down), W + s * diff. How they are put on a model: `install`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import OutputError, WeightsError
from ..files.layouts import OFFSET_KEY
from ..files.weights import Shape, WeightFile, broken_file

PREFIX = "diffusion_model."
INDEXES = {"lora": (0, 1), "diff": (0,)}
QUANTISED = ("quant_state", "quant_type", "gguf_cls", "real_shape")  # what packed weights carry
STORED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Rows:
    """Rows from `start` to before `stop` of a parameter that has `whole` rows."""

    start: int
    stop: int
    whole: int

    @property
    def part(self) -> slice:
        """Where they are."""
        return slice(self.start, self.stop)


@dataclass(frozen=True)
class LowRank:
    """up [out, r] and down [r, in]; the offset is scale * up @ down, reshaped.

    With `rows` it belongs to these rows of a larger parameter.
    """

    up: Tensor
    down: Tensor
    scale: float = 1.0
    rows: Rows | None = None

    def dense(self, shape: Shape, device: torch.device | str = "cpu") -> Tensor:
        """The whole offset in float32, [*shape], multiplied out on `device`."""
        product = self.scale * (self.up.to(device).float() @ self.down.to(device).float().flatten(1))
        if self.rows is None:
            return product.reshape(shape)
        whole = product.new_zeros(self.rows.whole, product.shape[1])
        whole[self.rows.part] = product
        return whole.reshape(shape)

    def fits(self, shape: Shape) -> bool:
        """Whether the offset can be added to a parameter of this shape."""
        if len(shape) < 2 or self.up.ndim != 2 or self.down.ndim < 2:
            return False
        rows = self.rows or Rows(0, shape[0], shape[0])
        flat = (len(self.up), self.down.shape[1:].numel())
        wanted = (rows.stop - rows.start, torch.Size(shape[1:]).numel())
        inside = rows.whole == shape[0] and rows.stop <= rows.whole
        return self.up.shape[1] == len(self.down) and inside and flat == wanted

    @property
    def nbytes(self) -> int:
        """Its size in memory."""
        return self.up.nbytes + self.down.nbytes

    @property
    def shapes(self) -> str:
        """What an error says about it."""
        at = "" if self.rows is None else f" for rows {self.rows.start} to {self.rows.stop}"
        return f"up {list(self.up.shape)}, down {list(self.down.shape)}{at}"


@dataclass(frozen=True)
class Full:
    """An offset of the parameter's shape; an input convolution's may be wider in dimension 1 (concat latents)."""

    diff: Tensor

    def dense(self, shape: Shape, device: torch.device | str = "cpu") -> Tensor:
        """The whole offset in float32, of its shape."""
        return self.diff.to(device).float()

    def fits(self, shape: Shape) -> bool:
        """Whether it has the parameter's shape, or is a wider input convolution."""
        own = tuple(self.diff.shape)
        return own == tuple(shape) or self.extra_channels(shape) > 0

    def extra_channels(self, shape: Shape) -> int:
        """How many input channels a convolution gains; 0 where the shapes do not say so."""
        own = tuple(self.diff.shape)
        wider = len(own) == len(shape) == 4 and own[0] == shape[0] and own[2:] == tuple(shape[2:])
        return max(0, own[1] - shape[1]) if wider else 0

    @property
    def nbytes(self) -> int:
        """Its size in memory."""
        return self.diff.nbytes

    @property
    def shapes(self) -> str:
        """What an error says about it."""
        return str(list(self.diff.shape))


Offset = LowRank | Full


@dataclass(frozen=True)
class OffsetSet:
    """The offsets of a file by parameter name (LDM, without prefix); `extra_channels` of the input convolution."""

    entries: dict[str, tuple[Offset, ...]]
    extra_channels: int = 0
    source: str = "the offsets"
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Their size in memory."""
        return sum(part.nbytes for parts in self.entries.values() for part in parts)


def read_offsets(path: str | Path, parameters: Mapping[str, Shape] | None = None) -> OffsetSet:
    """The offsets of a file; with the UNet's parameter names and shapes, all is checked before a tensor is read."""
    with WeightFile(path) as file:
        parts = _group_keys(file.shapes, file.path)
        if parameters is not None:
            _check_names(parts, parameters, file.path)
        entries = {
            name: tuple(_typed(kind, {i: file.tensor(key) for i, key in keys.items()}) for kind, keys in kinds.items())
            for name, kinds in parts.items()
        }
        offsets = OffsetSet(entries, source=str(file.path), metadata=file.metadata)
    return offsets if parameters is None else checked_offsets(offsets, parameters)


def parse_offsets(tensors: Mapping[str, Tensor], source: str = "the offsets") -> OffsetSet:
    """The offsets of a state dict in the published key layout."""
    parts = _group_keys(tensors, Path(source))
    return OffsetSet(
        {
            name: tuple(_typed(kind, {i: tensors[key] for i, key in keys.items()}) for kind, keys in kinds.items())
            for name, kinds in parts.items()
        },
        source=source,
    )


def checked_offsets(offsets: OffsetSet, parameters: Mapping[str, Shape]) -> OffsetSet:
    """The same offsets with `extra_channels` known; WeightsError with both shapes where one does not fit."""
    path = Path(offsets.source)
    _check_names(offsets.entries, parameters, path)
    extra = {}
    for name, parts in offsets.entries.items():
        shape = tuple(parameters[name])
        for part in parts:
            if not part.fits(shape):
                raise broken_file(path, f"an offset of {name} with {part.shapes}", f"one for a parameter {list(shape)}")
            if isinstance(part, Full) and part.extra_channels(shape):
                extra[name] = part.extra_channels(shape)
    if len(extra) > 1:
        raise broken_file(path, f"wider convolutions {', '.join(extra)}", "at most one wider input convolution")
    return OffsetSet(offsets.entries, next(iter(extra.values()), 0), offsets.source, offsets.metadata)


def merge_parameter(original: Tensor, parts: Iterable[Offset], strength: float) -> Tensor:
    """original + strength * offsets of any shape, computed in float32, in the original's dtype; wider where one is.

    Strength 0 returns the original itself, never widened.
    """
    parts = tuple(parts)
    if strength == 0 or not parts:
        return original
    merged = original.detach().float()
    for part in parts:
        dense = part.dense(tuple(original.shape), merged.device)
        extra = dense.shape[1] - merged.shape[1] if dense.ndim == merged.ndim == 4 else 0
        if extra > 0:
            merged = torch.cat([merged, merged.new_zeros(len(merged), extra, *merged.shape[2:])], 1)
        if dense.shape == merged.shape:
            merged = merged + strength * dense
        else:  # an ordinary offset beside a wider one
            merged = torch.cat([merged[:, : dense.shape[1]] + strength * dense, merged[:, dense.shape[1] :]], 1)
    return merged.to(original.dtype)


def make_diff(
    base: Mapping[str, Tensor], tuned: Mapping[str, Tensor], dtype: torch.dtype = torch.float16
) -> dict[str, Tensor]:
    """Full offsets tuned - base in the published layout; parameters that did not change are left out.

    Names are LDM, with or without the prefix. An input convolution may have become wider. WeightsError where the two
    are of different architectures.
    """
    unknown = [name for name in tuned if name not in base]
    if unknown:
        raise WeightsError(f"tuned parameter {unknown[0]}", "the parameters of the base", "compare equal architectures")
    result = {}
    for name, after in tuned.items():
        before = base[name].float()
        after = after.float().to(before.device)
        if after.shape != before.shape and Full(after).extra_channels(tuple(before.shape)):
            missing = after.shape[1] - before.shape[1]
            before = torch.cat([before, before.new_zeros(len(before), missing, *before.shape[2:])], 1)
        if after.shape != before.shape:
            raise WeightsError(
                f"{name} {list(after.shape)}", f"the base's {list(before.shape)}", "compare equal architectures"
            )
        if not torch.equal(after, before):
            result[f"{PREFIX}{name.removeprefix(PREFIX)}::diff::0"] = (after - before).to(dtype).contiguous().cpu()
    return result


def make_lora(pairs: Mapping[str, tuple[Tensor, Tensor]], dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """Low-rank offsets {parameter: (up [out,r], down [r,in])} in the published layout."""
    result = {}
    for name, (up, down) in pairs.items():
        key = f"{PREFIX}{name.removeprefix(PREFIX)}::lora::"
        result[key + "0"] = up.detach().to(dtype).contiguous().cpu()
        result[key + "1"] = down.detach().to(dtype).contiguous().cpu()
    return result


def write_offsets(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write offsets in the published layout; the file appears under its name only when it is whole.

    OutputError where it cannot be written.
    """
    path = Path(path)
    parse_offsets(tensors, str(path))  # what is written must load again
    partial = path.with_name(path.name + ".partial")
    try:
        save_file(dict(tensors), partial, metadata=dict(metadata or {"format": "pt"}))
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"{path} not written ({error})", "a folder that can be written, with space left", "free space and try again"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def write_lora(
    path: str | Path, pairs: Mapping[str, tuple[Tensor, Tensor]], metadata: Mapping[str, str] | None = None
) -> None:
    """Write low-rank offsets {parameter: (up, down)} as a file that `read_offsets` reads."""
    write_offsets(path, make_lora(pairs), metadata)


def is_quantised(parameter: Tensor) -> bool:
    """Whether the values, of any shape, are not plain floating-point numbers of 16 bits or more."""
    return parameter.dtype not in STORED or any(hasattr(parameter, name) for name in QUANTISED)


def plain_shape(module: nn.Module, weight: Tensor) -> Shape:
    """The shape [out,in,...] of the weight that a layer computes with, whatever it is packed as."""
    sides = (getattr(module, "out_features", None), getattr(module, "in_features", None))
    if isinstance(sides[0], int) and isinstance(sides[1], int):
        return (sides[0], sides[1])
    packed = getattr(getattr(weight, "quant_state", None), "shape", None)  # of four bits
    return tuple(packed or getattr(weight, "real_shape", None) or weight.shape)


def _group_keys(keys: Iterable[str], path: Path) -> dict[str, dict[str, dict[int, str]]]:
    """Keys -> {parameter: {kind: {index: key}}}; WeightsError names the first key that is not understood."""
    parts: dict[str, dict[str, dict[int, str]]] = {}
    for key in keys:
        match = OFFSET_KEY.match(key)
        if match is None or int(match["index"]) not in INDEXES[match["kind"]]:
            expected = "keys like diffusion_model.<path>.weight::lora::0 or ::diff::0"
            raise broken_file(path, f"the unknown key {key}", expected)
        parts.setdefault(match["parameter"], {}).setdefault(match["kind"], {})[int(match["index"])] = key
    for name, kinds in parts.items():
        for kind, found in kinds.items():
            if sorted(found) != list(INDEXES[kind]):
                raise broken_file(path, f"only part {sorted(found)} of {name}::{kind}", f"parts {INDEXES[kind]}")
    return parts


def _check_names(names: Iterable[str], parameters: Mapping[str, Shape], path: Path) -> None:
    unknown = [name for name in names if name not in parameters]
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise broken_file(path, f"an offset of {unknown[0]}{more}", "parameters that the loaded UNet has")


def _typed(kind: str, tensors: Mapping[int, Tensor]) -> Offset:
    return LowRank(tensors[0], tensors[1]) if kind == "lora" else Full(tensors[0])
