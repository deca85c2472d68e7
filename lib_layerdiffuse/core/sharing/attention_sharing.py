"""Attention sharing: units installed on the attention layers of a UNet, one for each, and taken off again.

Works on LDM and on diffusers layers alike: anything with to_q, to_k, to_v, to_out and heads. Frames of a group see each
other; the rows of a UNet call are (groups, frames). The strength scales all that a unit adds: 1 is the published
result, 0 leaves every layer untouched.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..errors import BaseMismatchError, InputError
from ..files.layouts import CONTROL_PREFIX, CONTROL_WIDTHS, SHARING_PREFIX, SharingShape, sharing_layout
from ..files.weights import Shape, WeightFile, broken_file, check_keys
from ..methods import Method
from ..rows import spread_rows
from .control_encoder import ControlEncoder, encoder_widths
from .sharing_run import COND, PATCHED, UNCOND, SharingRun
from .sharing_unit import AttentionLayer, Mix, Prepared, Seen, SharingUnit, working_dtype

__all__ = ["AttentionSharing", "Installation", "SharingRun", "check_layers", "install"]

logger = logging.getLogger(__name__)

UNIT_KEY = re.compile(rf"^{re.escape(SHARING_PREFIX)}(\d+)\.(.+)$")


class AttentionSharing:
    """The units of a weights file and its control encoder, if it has one; made ready per dtype and device once."""

    def __init__(self, units: Sequence[SharingUnit], control_encoder: ControlEncoder | None = None):
        self.units, self.control_encoder = tuple(units), control_encoder
        self._prepared: dict[int, tuple[tuple, Prepared]] = {}

    @property
    def frames(self) -> int:
        """Images per result."""
        return self.units[0].frames

    @classmethod
    def from_file(cls, path: str | Path, method: Method | None = None) -> AttentionSharing:
        """Read and check a file; with `method`, also that it has this method's frames and control."""
        with WeightFile(path) as file:
            shape = _shape_of(file.shapes, file.path)
            if method is not None:
                _check_method(shape, method, file.path)
            return cls._build(file.tensors(), shape)

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], source: str = "the units") -> AttentionSharing:
        """The same from tensors in the published key layout."""
        shape = _shape_of({key: tuple(tensor.shape) for key, tensor in state.items()}, Path(source))
        return cls._build(state, shape)

    @classmethod
    def _build(cls, state: Mapping[str, Tensor], shape: SharingShape) -> AttentionSharing:
        units: list[dict[str, Tensor]] = [{} for _ in range(2 * len(shape.widths))]
        encoder = {}
        for key, tensor in state.items():
            match = UNIT_KEY.match(key)
            if match:
                units[int(match[1])][match[2]] = tensor
            else:
                encoder[key.removeprefix(CONTROL_PREFIX)] = tensor
        return cls(
            [SharingUnit(tensors, shape.frames, shape.control) for tensors in units],
            ControlEncoder.from_state_dict(encoder) if encoder else None,
        )

    def prepared(self, index: int, strength: float, like: Tensor) -> Prepared:
        """Unit `index` ready for tensors of the type and device of `like`, of any shape; made once, then kept."""
        dtype = working_dtype(like)
        wanted = (strength, dtype, like.device)
        known = self._prepared.get(index)
        if known is None or known[0] != wanted:
            known = (wanted, Prepared(self.units[index], strength, torch.empty(0, dtype=dtype, device=like.device)))
            self._prepared[index] = known
        return known[1]

    def merged_bytes(self, attentions: Sequence[nn.Module]) -> int:
        """Size of a copy of the layers' weights for each frame."""
        return self.frames * sum(weight.nbytes for layer in attentions for weight in layer.parameters())

    def release(self) -> None:
        """Forget what was made ready (frees the device); the units stay."""
        self._prepared.clear()

    def signals(self, image: Tensor) -> dict[int, Tensor]:
        """Control image [N,3,H,W] in [-1,1] on grey, at the size of the pictures -> signals for a `SharingRun`.

        InputError for units without control.
        """
        if self.control_encoder is None:
            raise InputError("a control image", "none: these units have no control encoder", "leave the image away")
        encoder = self.control_encoder.to(image.device)
        with torch.no_grad():
            return encoder.float()(image.float())


@dataclass
class Installation:
    """Units on a UNet; a context manager that puts the former forwards back, also after exceptions."""

    _removers: list[Callable[[], None]]

    def remove(self) -> None:
        """Put every former forward back."""
        while self._removers:
            self._removers.pop()()

    def __enter__(self) -> Installation:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.remove()


def install(
    sharing: AttentionSharing, attentions: Sequence[nn.Module], run: SharingRun, strength: float = 1.0
) -> Installation:
    """Put the units on attention layers, given in the order of `unit_places`; strength 0 leaves them alone.

    BaseMismatchError for layers of another model, InputError for prompts of another number of frames.
    """
    check_layers(sharing, attentions)
    _check_depths(sharing, run)
    if run.overrides and len(run.overrides) != sharing.frames:
        raise InputError(f"{len(run.overrides)} extra prompts", f"{sharing.frames}, one per frame", "use None for none")
    if strength == 0:
        return Installation([])
    layers = [
        _Layer(sharing, index, cast("AttentionLayer", module), run, strength) for index, module in enumerate(attentions)
    ]
    return Installation([layer.install() for layer in layers])


class _Layer:
    """One attention layer with its unit: the replacement of its forward."""

    def __init__(
        self, sharing: AttentionSharing, index: int, attention: AttentionLayer, run: SharingRun, strength: float
    ):
        self.sharing, self.index, self.attention = sharing, index, attention
        self.run, self.strength, self.kind = run, strength, PATCHED[index % 2]
        self.former: Callable | None = attention.__dict__.get("forward")
        self.installed = False

    def install(self) -> Callable[[], None]:
        """Replace the forward on the instance; returns what puts the former state back."""

        def forward(hidden: Tensor, context: Tensor | None = None, *others: object, **named: Any) -> Tensor:
            if not (self.installed and self.run.active):
                return self._plain(hidden, context, *others, **named)
            return self._shared(hidden, named.get("encoder_hidden_states", context), others, named)

        def remove() -> None:
            self.installed = False
            if self.attention.__dict__.get("forward") is not forward:
                # somebody wrapped ours: taking it away would take theirs too, so ours stays as a mere passage
                logger.warning("forward of attention %d was replaced meanwhile and is left in place", self.index)
            elif self.former is None:
                del self.attention.forward
            else:
                self.attention.forward = self.former

        self.attention.forward = forward
        self.installed = True
        return remove

    def _plain(self, hidden: Tensor, context: Tensor | None, *others: object, **named: object) -> Tensor:
        inputs = (
            (hidden, *others) if context is None and "encoder_hidden_states" in named else (hidden, context, *others)
        )
        if self.former is not None:
            return self.former(*inputs, **named)
        return type(self.attention).forward(self.attention, *inputs, **named)

    def _shared(self, hidden: Tensor, context: Tensor | None, others: tuple = (), named: dict | None = None) -> Tensor:
        """Rows (groups, frames) of [B,T,C] -> what the transformer block adds to them."""
        B, _, _ = hidden.shape
        given, named, count = context, named or {}, self.sharing.frames
        if B % count and given is not None and self.run.adds_rows:
            missing = -B % count
            filled = _filled_up(missing, hidden), _filled_up(missing, given)
            return self._shared(*filled, others, _filled_named(missing, named))[:B]
        if B % count:
            raise InputError(f"a batch of {B} rows", f"a multiple of {count} frames", "round the batch size up")
        unit = self.sharing.prepared(self.index, self.strength, hidden)
        frames = _frames_first(hidden, count)
        added = self.run.control_for(self.index, unit, frames) if unit.control else None
        if added is not None:
            frames = frames + added
        seen = self._seen(frames, context, named.get("value"))
        attended = unit.attend(self.attention, frames, seen, self.run.projections_of(self.index))
        result = attended if added is None else attended + added
        result = result + unit.temporal(frames + attended, self.attention.heads)
        result = _rows(result)
        return result if given is None else result + self._of_others(hidden, given, others, named)

    def _seen(self, frames: Tensor, context: Tensor | None, value: Tensor | None) -> Seen:
        """What the frames attend to: themselves or a context, and by whose function."""
        patch, options = self.run.patch_of(PATCHED[0], self.attention) if self.kind == PATCHED[0] else (None, {})
        mix = None if patch is None else self._mixed_by(patch, options)
        if context is None:
            return Seen(frames, frames, mix=mix)
        keys, mask = self._context(_frames_first(context, self.sharing.frames))
        if value is None or value is context or mask is not None:
            return Seen(keys, keys, mask, mix)
        return Seen(keys, _frames_first(value, self.sharing.frames), mask, mix)

    def _mixed_by(self, patch: Callable, options: dict) -> Mix:
        """A patch that replaces self-attention (of guidance, of aligned styles), at work on the frames' projections."""

        def mix(*parts: Tensor) -> Tensor:
            return _frames_first(patch(*map(_rows, parts), options), self.sharing.frames)

        return mix

    def _of_others(self, hidden: Tensor, context: Tensor, others: tuple, named: dict) -> Tensor | float:
        """What somebody else (an IP-Adapter) adds to this cross attention, by a forward or by a patch of the block."""
        layer, own = self.attention, type(self.attention).forward
        named = {name: value for name, value in named.items() if name != "encoder_hidden_states"}  # it is `context`
        results = []
        if self.former is not None and getattr(self.former, "__func__", None) is not own:
            results.append(self.former(hidden, context, *others, **named))
        patch, options = self.run.patch_of(self.kind, layer) if self.kind == PATCHED[1] else (None, {})
        if patch is not None:
            value = context if named.get("value") is None else named["value"]
            results.append(layer.to_out(patch(layer.to_q(hidden), layer.to_k(context), layer.to_v(value), options)))
        if not results:
            return 0.0
        return sum(results) - len(results) * own(layer, hidden, context, *others, **named)

    def _context(self, context: Tensor) -> tuple[Tensor, Tensor | None]:
        """Context [F,G,S,D] with the frames' own conditioning in conditional rows, and a mask where lengths differ."""
        overrides = self.run.overrides
        if all(override is None for override in overrides):
            return context, None
        conditional = self._conditional(context)
        length = max(context.shape[2], *(override.shape[1] for override in overrides if override is not None))
        kept = torch.zeros(*context.shape[:2], length, dtype=torch.bool, device=context.device)
        kept[:, :, : context.shape[2]] = True
        result = nn.functional.pad(context, (0, 0, 0, length - context.shape[2]))
        for frame, override in enumerate(overrides):
            if override is None:
                continue
            rows = conditional[frame]
            own = spread_rows(override.to(result), len(rows), self.run.groups)[rows]
            result[frame, rows, : own.shape[1]] = own
            kept[frame, rows] = torch.arange(length, device=kept.device) < own.shape[1]
        return result, None if kept.all() else kept.flatten(0, 1)[:, None, None]

    def _conditional(self, context: Tensor) -> Tensor:
        """[F,G] whether a row is conditional."""
        count, groups = context.shape[:2]
        rows = self.run.rows
        if rows is None or len(rows) != count * groups or not set(rows) <= {COND, UNCOND}:
            raise InputError(
                f"row map {rows}",
                f"{count * groups} times 'cond' or 'uncond'",
                "set SharingRun.rows before each UNet call",
            )
        marks = torch.tensor([row == COND for row in rows], device=context.device)
        return marks.view(groups, count).T


def _frames_first(rows: Tensor, count: int) -> Tensor:
    """[G*F,T,C] -> [F,G,T,C] without gaps in memory."""
    return rows.unflatten(0, (-1, count)).transpose(0, 1).contiguous()


def _rows(frames: Tensor) -> Tensor:
    """[F,G,T,C] -> [G*F,T,C]."""
    return frames.transpose(0, 1).flatten(0, 1)


def _filled_up(missing: int, part: Tensor) -> Tensor:
    """[B,T,C] with rows of zeros to a whole result, which sees no other."""
    return nn.functional.pad(part, (0, 0, 0, 0, 0, missing))


def _filled_named(missing: int, named: dict) -> dict:
    names = ("encoder_hidden_states", "value")
    return {
        name: _filled_up(missing, value) if name in names and value is not None else value
        for name, value in named.items()
    }


def replaced_self_attention(attentions: Sequence[nn.Module]) -> list[str]:
    """Where the functions come from that others have put in place of self-attention; the units go before them."""
    formers = [attention.__dict__.get("forward") for attention in attentions[::2]]
    foreign = {
        former
        for former, attention in zip(formers, attentions[::2], strict=True)
        if former is not None and getattr(former, "__func__", None) is not type(attention).forward
    }
    return sorted({origin(former) for former in foreign})


def origin(function: object) -> str:
    """The module of a function or an object that is called, to name it."""
    return str(getattr(function, "__module__", None) or type(function).__module__)


ADVICE = "load a checkpoint of the model that the file was made for, or choose a method for the one that is loaded"


def check_layers(sharing: AttentionSharing, attentions: Sequence[nn.Module], advice: str = ADVICE) -> None:
    """BaseMismatchError unless there is a layer of the right widths for each unit."""
    count = len(sharing.units)
    if len(attentions) != count:
        raise BaseMismatchError(
            f"a UNet with {len(attentions)} attention layers", f"{count}, as many as the file has units", advice
        )
    for index, (unit, attention) in enumerate(zip(sharing.units, attentions, strict=True)):
        widths = tuple(_input_width(attention, name) for name in ("to_q", "to_k"))
        if widths != (unit.width, unit.context_width):
            raise BaseMismatchError(
                f"attention layer {index} of widths {widths} (hidden, what it attends to)",
                f"{(unit.width, unit.context_width)}, as in the file",
                advice,
            )


def _check_depths(sharing: AttentionSharing, run: SharingRun) -> None:
    """BaseMismatchError unless the control encoder has a signal for each depth of the UNet."""
    encoder, needed = sharing.control_encoder, max(run.depths, default=0) + 1
    if encoder is not None and run.depths and encoder.depths < needed:
        raise BaseMismatchError(
            f"a UNet of {needed} depths",
            f"at most {encoder.depths}, for which the file's control encoder has signals",
            ADVICE,
        )


def _input_width(attention: nn.Module, name: str) -> int | None:
    layer = getattr(attention, name, None)
    return getattr(layer, "in_features", None)


def _shape_of(shapes: Mapping[str, Shape], path: Path) -> SharingShape:
    """The numbers that fix the layout, from a few keys; then all keys and shapes are checked against it."""
    indexes = {int(match[1]) for match in map(UNIT_KEY.match, shapes) if match}
    down_q, down_k = (
        shapes.get(f"{SHARING_PREFIX}{key}", ()) for key in ("0.to_q_lora.0.down.weight", "1.to_k_lora.0.down.weight")
    )
    if not indexes or len(down_q) != 2 or len(down_k) != 2:
        raise broken_file(
            path, "no attention sharing units", f"keys {SHARING_PREFIX}0.to_q_lora.0.down.weight and so on"
        )
    rank, context = down_q[0], down_k[1]
    frames = sum(f"{SHARING_PREFIX}0.to_q_lora.{frame}.down.weight" in shapes for frame in range(len(shapes)))
    norms = [
        shapes.get(f"{SHARING_PREFIX}{index}.temporal_n.weight") or (0,) for index in range(0, max(indexes) + 1, 2)
    ]
    encoder = {key.removeprefix(CONTROL_PREFIX): size for key, size in shapes.items() if key.startswith(CONTROL_PREFIX)}
    widths = encoder_widths(encoder) or CONTROL_WIDTHS
    shape = SharingShape(frames, tuple(norm[0] for norm in norms), context, rank, bool(encoder), widths)
    if len({block[-1] for block in widths}) > 1:
        raise broken_file(path, f"control signals of {[block[-1] for block in widths]} channels", "one width for all")
    check_keys(path, shapes, sharing_layout(shape))
    return shape


def _check_method(shape: SharingShape, method: Method, path: Path) -> None:
    got = (shape.frames, shape.control)
    if got != (len(method.frames), method.control is not None):
        with_control = " with control" if shape.control else ""
        raise broken_file(path, f"units for {shape.frames} frames{with_control}", f"those of method {method.id}")
