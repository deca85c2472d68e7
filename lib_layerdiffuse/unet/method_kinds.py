"""How the methods of each kind are read from a file and put on a UNet, whatever host it belongs to.

A UNet is a mapping from LDM module paths to modules here: `dict(unet.named_modules())` for an LDM UNet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..core.bases import BASES
from ..core.errors import BaseMismatchError, InputError
from ..core.memory import free_bytes
from ..core.methods import ATTENTION_SHARING, LORA, OFFSETS, Method
from ..core.offsets.install import (
    ConcatLatents,
    MergedCopies,
    can_merge,
    hook_offsets,
    merge_offsets,
    merged_bytes,
    parameter_shapes,
)
from ..core.offsets.lora_files import read_lora
from ..core.offsets.offsets import OffsetSet, read_offsets
from ..core.picture.boxes import Box
from ..core.sharing.attention_sharing import (
    AttentionSharing,
    SharingRun,
    check_layers,
    install,
    replaced_self_attention,
)
from ..core.sharing.places import unit_places

Modules = Mapping[str, torch.nn.Module]
KEPT_PARTS = 4  # batches of tiles whose control signals are kept from step to step
ROOM = 1.5  # times the size of the merged parameters that must be free beside them


@dataclass(frozen=True)
class Conditions:
    """What a method sees: latents [N,4 or 8,h,w] in sampler scale, or a control image [1,3,H,W] in [-1,1].

    N is 1, or the pictures of the batch.
    """

    concat: torch.Tensor | None = None
    control: torch.Tensor | None = None


def untouched(options: dict[str, Any]) -> dict[str, Any]:
    """Options of a UNet call that a method has nothing to do with."""
    return options


@dataclass(frozen=True)
class OnUnet:
    """A method that is on a UNet: switched off and on for a while, and what it changes in the options of a call.

    `suppressed` says whose functions have no effect beside it. `set_boxes` is there where the method sees pictures: it
    takes the part of the whole, of size (h, w), that each row of the coming UNet call is; None where all are whole.
    `see` is there where it sees latents: it takes those for the calls to come.
    `set_pictures` is there where each picture of a batch sees one of its own: it takes the picture of each row; None
    where they stand in the batch's order.
    """

    set_active: Callable[[bool], object]
    adopt: Callable[[dict[str, Any]], dict[str, Any]] = untouched
    suppressed: Sequence[str] = ()
    set_boxes: Callable[[Sequence[Box] | None, tuple[int, int]], object] | None = None
    see: Callable[[torch.Tensor], object] | None = None
    set_pictures: Callable[[Sequence[int] | None], object] | None = None


@dataclass(frozen=True)
class Memory:
    """Bytes on the device beside the UNet: the least that a method can do with, and what makes it quick."""

    least: int
    quick: int


@dataclass(frozen=True)
class Kind:
    """How methods of one kind are read from a file and put on a UNet."""

    read: Callable[[Path, Modules, Method], Any]
    put: Callable[[ExitStack, Any, Modules, float, Conditions], OnUnet]
    memory: Callable[[Any, Modules], Memory]
    needs_all_tokens: bool = False  # what merges or tiles the tokens of attention layers must be off beside it


@dataclass(frozen=True)
class KeptOffsets:
    """The offsets of a file, and what merging them into the loaded UNet gave."""

    offsets: OffsetSet
    copies: MergedCopies = field(default_factory=MergedCopies)

    def release(self) -> None:
        """Forget what was merged; the offsets stay."""
        self.copies.clear()


def _read_offsets(path: Path, modules: Modules, method: Method) -> KeptOffsets:
    return KeptOffsets(read_offsets(path, parameter_shapes(modules)))


def _put_offsets(
    stack: ExitStack, kept: KeptOffsets, modules: Modules, strength: float, conditions: Conditions
) -> OnUnet:
    concat = None if conditions.concat is None else ConcatLatents(conditions.concat)
    installed = stack.enter_context(install_offsets(kept, modules, strength, concat))
    if concat is None or not strength:
        return OnUnet(installed.set_active, see=None if concat is None else concat.see)

    def set_boxes(boxes: Sequence[Box] | None, whole: tuple[int, int]) -> None:
        concat.boxes, concat.whole = boxes, whole

    def set_pictures(pictures: Sequence[int] | None) -> None:
        concat.pictures = pictures

    own = set_pictures if len(concat.latents) > 1 else None
    return OnUnet(installed.set_active, set_boxes=set_boxes, see=concat.see, set_pictures=own)


def install_offsets(kept: KeptOffsets, modules: Modules, strength: float, concat: ConcatLatents | None) -> Any:
    """Merged where that can be, as it costs nothing per step; added by hooks for quantised weights."""
    offsets = kept.offsets
    if strength and not can_merge(offsets, modules):
        return hook_offsets(offsets, modules, strength, concat)
    spare = is_short(merged_bytes(offsets, modules))
    if spare:
        kept.release()
    return merge_offsets(offsets, modules, strength, concat, spare, None if spare else kept.copies)


def _memory_of_offsets(kept: KeptOffsets, modules: Modules) -> Memory:
    """Merged weights may take the place of the UNet's own; those that cannot be merged are beside it."""
    if not can_merge(kept.offsets, modules):
        return Memory(kept.offsets.nbytes, kept.offsets.nbytes)
    return Memory(0, merged_bytes(kept.offsets, modules))


def _read_lora(path: Path, modules: Modules, method: Method) -> KeptOffsets:
    return KeptOffsets(read_lora(path, parameter_shapes(modules)))


def _put_lora(stack: ExitStack, kept: KeptOffsets, modules: Modules, strength: float, conditions: Conditions) -> OnUnet:
    """By hooks always: it touches almost all of a transformer, which merged would be there twice."""
    installed = stack.enter_context(hook_offsets(kept.offsets, modules, strength))
    return OnUnet(installed.set_active)


def _memory_of_lora(kept: KeptOffsets, modules: Modules) -> Memory:
    return Memory(kept.offsets.nbytes, kept.offsets.nbytes)


def is_short(size: int) -> bool:
    """Whether the graphics card has no room for `size` more bytes of weights."""
    return torch.cuda.is_available() and free_bytes(torch.device("cuda")) < ROOM * size


def _read_sharing(path: Path, modules: Modules, method: Method) -> AttentionSharing:
    layers = sharing_layers(modules)
    sharing = AttentionSharing.from_file(path, method)
    title = BASES[method.base].title
    check_layers(sharing, layers, f"load a checkpoint of {title}, or choose a method for the one that is loaded")
    return sharing


def _put_sharing(
    stack: ExitStack, sharing: AttentionSharing, modules: Modules, strength: float, conditions: Conditions
) -> OnUnet:
    layers = sharing_layers(modules)
    depths = [place.depth for place in unit_places(modules)]
    run = SharingRun(merging=not is_short(sharing.merged_bytes(layers)), depths=depths)
    control = None if conditions.control is None else PartsOfControl(sharing, run, conditions.control)
    if not strength:
        return OnUnet(lambda active: None)
    suppressed = replaced_self_attention(layers)
    stack.enter_context(install(sharing, layers, run, strength))
    set_boxes = None if control is None else control.set_boxes
    return OnUnet(lambda active: setattr(run, "active", active), run.adopt, suppressed, set_boxes)


def _memory_of_sharing(sharing: AttentionSharing, modules: Modules) -> Memory:
    """Units are beside the UNet, or merged with a copy of its layers for each frame."""
    units = sum(tensor.nbytes for unit in sharing.units for tensor in unit.tensors.values())
    return Memory(units, sharing.merged_bytes(sharing_layers(modules)))


class PartsOfControl:
    """The control signals of a run: those of the whole picture, or of the parts that a tiled sampler is at.

    `image` [1,3,H,W] in [-1,1], on grey.
    """

    def __init__(self, sharing: AttentionSharing, run: SharingRun, image: torch.Tensor):
        self.sharing, self.run, self.image = sharing, run, image
        self.whole = run.signals = sharing.signals(image)
        self._kept: dict[tuple[Box, ...], Mapping[int, torch.Tensor]] = {}

    def set_boxes(self, boxes: Sequence[Box] | None, whole: tuple[int, int]) -> None:
        """Signals for the rows of the coming UNet call; the frames of a result show the same part.

        InputError where they do not.
        """
        if boxes is None:
            self.run.signals, self.run.groups = self.whole, None
            return
        of_groups, frames = boxes[:: self.sharing.frames], self.sharing.frames
        if [box for box in of_groups for _ in range(frames)] != list(boxes):
            raise InputError(
                "tiles that do not hold whole results",
                f"all {frames} frames of a result in each tile",
                "switch off the script that samples in tiles",
            )
        parts = tuple(dict.fromkeys(of_groups))
        self.run.signals = self._signals(parts, self.image.shape[-2] // whole[0])
        self.run.groups = [parts.index(box) for box in of_groups]

    def _signals(self, parts: tuple[Box, ...], factor: int) -> Mapping[int, torch.Tensor]:
        known = self._kept.pop(parts, None)
        if known is None:
            known = self.sharing.signals(torch.cat([box.of(self.image, factor) for box in parts]))
        while len(self._kept) >= KEPT_PARTS:  # each is as large as what a tile's layers see
            del self._kept[next(iter(self._kept))]
        self._kept[parts] = known
        return known


KINDS: Mapping[str, Kind] = {
    OFFSETS: Kind(_read_offsets, _put_offsets, _memory_of_offsets),
    ATTENTION_SHARING: Kind(_read_sharing, _put_sharing, _memory_of_sharing, needs_all_tokens=True),
    LORA: Kind(_read_lora, _put_lora, _memory_of_lora),
}


def sharing_layers(modules: Modules) -> list[torch.nn.Module]:
    """The attention layers in the order of a file's units; BaseMismatchError where the UNet has none."""
    places = unit_places(modules)
    if not places:
        raise BaseMismatchError(
            "a UNet without attention layers", "one of Stable Diffusion's layout", "load another checkpoint"
        )
    return [modules[place.path] for place in places]


def read_method(path: Path, modules: Modules, method: Method) -> Any:
    """The weights of a method, checked against the UNet, which is not touched."""
    return KINDS[method.kind].read(path, modules, method)


def needed_bytes(method: Method, weights: Any, modules: Modules, device: torch.device) -> int:
    """Bytes that a host should leave free on `device` for a method, which then chooses its way by what it finds.

    No more than the least where the UNet, once it is all there, leaves no room for what makes a method quick: a host
    that is short of memory would keep parts of the UNet off the device for it, and be slower.
    """
    memory = KINDS[method.kind].memory(weights, modules)
    parameters = (value for module in modules.values() for value in module._parameters.values() if value is not None)
    to_come = sum(value.nbytes for value in parameters if value.device.type != device.type)
    return memory.quick if free_bytes(device) > ROOM * (to_come + memory.quick) else memory.least


def needs_all_tokens(method: Method) -> bool:
    """Whether what merges or tiles the tokens of attention layers must be off beside a method."""
    return KINDS[method.kind].needs_all_tokens


def put_method(
    stack: ExitStack, method: Method, weights: Any, modules: Modules, strength: float, conditions: Conditions
) -> OnUnet:
    """`weights` on the UNet until `stack` is closed."""
    return KINDS[method.kind].put(stack, weights, modules, strength, conditions)
