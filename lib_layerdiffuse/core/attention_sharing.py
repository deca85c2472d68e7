"""Attention sharing of the SD1.5 methods: 32 units installed on the attention layers of any UNet, and taken off again.

Works on LDM and on diffusers layers alike: anything with to_q, to_k, to_v, to_out and heads. Frames of a group see each
other; the rows of a UNet call are (groups, frames). The strength scales all that a unit adds: 1 is the published
result, 0 leaves every layer untouched.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from .control_encoder import ControlEncoder
from .errors import BaseMismatchError, InputError
from .layouts import CONTROL_PREFIX, PROJECTIONS, SHARING_PREFIX, SharingShape, sharing_layout, unit_paths
from .methods import Method
from .rows import spread_rows
from .sharing_unit import Prepared, Projections, SharingUnit, working_dtype
from .weights import Shape, WeightFile, broken_file, check_keys

__all__ = ["AttentionSharing", "Installation", "SharingRun", "install", "unit_paths"]

logger = logging.getLogger(__name__)

UNIT_KEY = re.compile(rf"^{re.escape(SHARING_PREFIX)}(\d+)\.(.+)$")
COND, UNCOND = "cond", "uncond"


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
        """Unit `index` ready for tensors like `like`; made at the first call, kept for the following ones."""
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
        """Control image [N,3,H,W] in [-1,1] on grey, at the size of the pictures -> signals for a `SharingRun`."""
        if self.control_encoder is None:
            raise InputError("a control image", "none: these units have no control encoder", "leave the image away")
        encoder = self.control_encoder.to(image.device)
        with torch.no_grad():
            return encoder.float()(image.float())


@dataclass
class SharingRun:
    """What changes from run to run, or from UNet call to UNet call.

    `overrides`: one entry per frame, text conditioning [N,S,D] that replaces the context in conditional rows.
    `rows`: 'cond' or 'uncond' for each row of the coming UNet call; needed where there are overrides.
    `signals`: of `AttentionSharing.signals`. N is 1, or the results of the batch. `groups`: which result each group of
    the coming call belongs to, where a host splits a batch over several calls. `active` False is the plain UNet.
    `merging` lets projections be merged with their layers' weights: quicker, and a copy of them for each frame.
    """

    overrides: Sequence[Tensor | None] = ()
    signals: Mapping[int, Tensor] = field(default_factory=dict)
    rows: Sequence[str] | None = None
    groups: Sequence[int] | None = None
    active: bool = True
    merging: bool = True
    options: dict = field(default_factory=dict, repr=False)  # of the UNet call at hand, where it has patches
    patches: dict = field(default_factory=dict, repr=False)  # of cross attention in that call
    _control: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)
    _projections: dict[int, Projections] = field(default_factory=dict, repr=False)

    def projections_of(self, index: int) -> Projections:
        """What is merged in this run of unit `index`, by the name of the projection; None where it cannot be."""
        if not self.merging:
            return dict.fromkeys(PROJECTIONS)
        return self._projections.setdefault(index, {})

    def adopt(self, options: dict) -> dict:
        """Options of a UNet call (Forge's `transformer_options`) without the patches that bypass cross attention."""
        self.options, self.patches = {}, {}
        replaced = options.get("patches_replace", {})
        if not replaced.get("attn2"):
            return options
        self.patches = replaced["attn2"]
        rest = {name: patches for name, patches in replaced.items() if name != "attn2"}
        self.options = {**options, "patches_replace": rest}
        return self.options

    def patch_of(self, attention: nn.Module) -> tuple[Callable | None, dict]:
        """The patch of the block that the UNet is in, with the options that it wants."""
        if not self.patches:
            return None, {}
        options = {name: value for name, value in self.options.items() if name not in ("patches", "patches_replace")}
        options["n_heads"], options["dim_head"] = attention.heads, getattr(attention, "dim_head", None)
        block = options.get("block")
        full = block and (block[0], block[1], options.get("block_index", 0))
        return self.patches.get(full, self.patches.get(block)), options

    def control_for(self, index: int, prepared: Prepared, hidden: Tensor) -> Tensor:
        """What control adds to unit `index`, [F,groups,T,C]; the convolutions run once per run, not per step."""
        _, groups, tokens, _ = hidden.shape
        signal = self._signal(tokens)
        known = self._control.get(index)
        if known is None or known[0] is not signal or known[1].dtype != hidden.dtype:
            known = (signal, prepared.control_tokens(signal.to(hidden.device)))
            self._control[index] = known
        return torch.stack([spread_rows(added, groups, self.groups) for added in known[1]])

    def _signal(self, tokens: int) -> Tensor:
        if tokens in self.signals:
            return self.signals[tokens]
        have = ", ".join(str(count) for count in self.signals) or "none at all"
        raise InputError(
            f"a layer of {tokens} tokens, and control signals of {have}",
            "a control image of the size of the picture",
            "encode the control image at the size of the picture; switch token merging off",
        )


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
    """Put the units on attention layers, given in the order of `unit_paths()`; strength 0 leaves them alone."""
    _check_layers(sharing, attentions)
    if run.overrides and len(run.overrides) != sharing.frames:
        raise InputError(f"{len(run.overrides)} extra prompts", f"{sharing.frames}, one per frame", "use None for none")
    if strength == 0:
        return Installation([])
    layers = [_Layer(sharing, index, module, run, strength) for index, module in enumerate(attentions)]
    return Installation([layer.install() for layer in layers])


class _Layer:
    """One attention layer with its unit: the replacement of its forward."""

    def __init__(self, sharing: AttentionSharing, index: int, attention: nn.Module, run: SharingRun, strength: float):
        self.sharing, self.index, self.attention = sharing, index, attention
        self.run, self.strength = run, strength
        self.former: Callable | None = attention.__dict__.get("forward")
        self.installed = False

    def install(self) -> Callable[[], None]:
        """Replace the forward on the instance; returns what puts the former state back."""

        def forward(hidden: Tensor, context: Tensor | None = None, *others: object, **named: object) -> Tensor:
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
        given, named = context, named or {}
        count = self.sharing.frames
        if B % count:
            raise InputError(f"a batch of {B} rows", f"a multiple of {count} frames", "round the batch size up")
        unit = self.sharing.prepared(self.index, self.strength, hidden)
        frames = _frames_first(hidden, count)
        added = self.run.control_for(self.index, unit, frames) if unit.control else None
        if added is not None:
            frames = frames + added
        mask = None
        if context is None:
            context = frames
        else:
            context, mask = self._context(_frames_first(context, count))
        attended = unit.attend(self.attention, frames, context, mask, self.run.projections_of(self.index))
        result = attended if added is None else attended + added
        result = result + unit.temporal(frames + attended, self.attention.heads)
        result = result.transpose(0, 1).flatten(0, 1)
        return result if given is None else result + self._of_others(hidden, given, others, named)

    def _of_others(self, hidden: Tensor, context: Tensor, others: tuple, named: dict) -> Tensor | float:
        """What somebody else (an IP-Adapter) adds to this cross attention, by a forward or by a patch of the block."""
        layer, own = self.attention, type(self.attention).forward
        named = {name: value for name, value in named.items() if name != "encoder_hidden_states"}  # it is `context`
        results = []
        if self.former is not None and getattr(self.former, "__func__", None) is not own:
            results.append(self.former(hidden, context, *others, **named))
        patch, options = self.run.patch_of(layer)
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


def _check_layers(sharing: AttentionSharing, attentions: Sequence[nn.Module]) -> None:
    """BaseMismatchError unless there is a layer of the right widths for each unit."""
    expected = f"the {len(sharing.units)} attention layers of SD1.5"
    advice = "load an SD1.5 checkpoint, or choose a method for the one that is loaded"
    if len(attentions) != len(sharing.units):
        raise BaseMismatchError(f"a UNet with {len(attentions)} attention layers", expected, advice)
    for index, (unit, attention) in enumerate(zip(sharing.units, attentions, strict=True)):
        widths = tuple(_input_width(attention, name) for name in ("to_q", "to_k"))
        if widths != (unit.width, unit.context_width):
            raise BaseMismatchError(
                f"attention layer {index} of widths {widths}",
                f"{(unit.width, unit.context_width)}, as in {expected}",
                advice,
            )


def _input_width(attention: nn.Module, name: str) -> int | None:
    layer = getattr(attention, name, None)
    return getattr(layer, "in_features", None)


def _shape_of(shapes: Mapping[str, Shape], path: Path) -> SharingShape:
    """The numbers that fix the layout, from a few keys; then all keys and shapes are checked against it."""
    indexes = {int(match[1]) for match in map(UNIT_KEY.match, shapes) if match}
    probe = {
        key: shapes.get(f"{SHARING_PREFIX}{key}") for key in ("0.to_q_lora.0.down.weight", "1.to_k_lora.0.down.weight")
    }
    if not indexes or any(shape is None or len(shape) != 2 for shape in probe.values()):
        raise broken_file(
            path, "no attention sharing units", f"keys {SHARING_PREFIX}0.to_q_lora.0.down.weight and so on"
        )
    (rank, _), (_, context) = probe.values()
    frames = sum(f"{SHARING_PREFIX}0.to_q_lora.{frame}.down.weight" in shapes for frame in range(len(shapes)))
    norms = [
        shapes.get(f"{SHARING_PREFIX}{index}.temporal_n.weight") or (0,) for index in range(0, max(indexes) + 1, 2)
    ]
    control = any(key.startswith(CONTROL_PREFIX) for key in shapes)
    shape = SharingShape(frames, tuple(norm[0] for norm in norms), context, rank, control)
    check_keys(path, shapes, sharing_layout(shape))
    return shape


def _check_method(shape: SharingShape, method: Method, path: Path) -> None:
    got = (shape.frames, shape.control)
    if got != (len(method.frames), method.control is not None):
        with_control = " with control" if shape.control else ""
        raise broken_file(path, f"units for {shape.frames} frames{with_control}", f"those of method {method.id}")
