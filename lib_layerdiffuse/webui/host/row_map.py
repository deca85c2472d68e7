"""Which picture each row of a UNet call belongs to, and the order that attention sharing wants.

A denoising step makes one or more UNet calls whose rows, put together, are in the order that is known when the step
begins. Sharing wants (results, frames): all frames of a result side by side, for the same part of the guidance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ...core.errors import InputError

UNCOND = -1


@dataclass(frozen=True)
class Row:
    """A row of a UNet call: the picture in the batch, and its conditional prompt (0, 1, ...) or UNCOND."""

    image: int
    part: int


@dataclass
class RowMap:
    """The rows of one denoising step, handed out call by call."""

    frames: int
    rows: Sequence[Row] = ()
    taken: int = 0
    _orders: dict = field(default_factory=dict, repr=False)

    def begin_step(self, rows: Sequence[Row]) -> None:
        """Set the rows of the coming step; none where the host's own order is (results, frames) anyway."""
        self.rows, self.taken = rows, 0

    def order(self, count: int) -> list[int] | None:
        """The order that the next `count` rows must be brought into; None where they are in it already."""
        rows = tuple(self.rows[self.taken : self.taken + count])
        self.taken += count
        if len(rows) < count:  # no map, or a call that the step did not announce
            return self._natural(count)
        if rows not in self._orders:
            self._orders[rows] = sharing_order(rows, self.frames)
        return self._orders[rows]

    def pictures(self, count: int) -> list[int] | None:
        """The picture of each of the next `count` rows; None where they stand in the order of the batch."""
        rows = self.rows[self.taken : self.taken + count]
        self.taken += count
        return [row.image for row in rows] if len(rows) == count else None

    def _natural(self, count: int) -> None:
        if count % self.frames:
            raise _torn(count, self.frames)


def sharing_order(rows: Sequence[Row], frames: int) -> list[int] | None:
    """Places of `rows` in the order (part, result, frame); None when they stand so already.

    InputError where the rows of a result are torn apart.
    """
    order = sorted(range(len(rows)), key=lambda place: (rows[place].part, rows[place].image))
    groups = [[rows[place] for place in order[start : start + frames]] for start in range(0, len(order), frames)]
    for group in groups:
        wanted = [Row(group[0].image + frame, group[0].part) for frame in range(frames)]
        if group != wanted or group[0].image % frames:
            raise _torn(len(rows), frames)
    return None if order == list(range(len(rows))) else order


def step_rows(prompts_of_images: Sequence[int], with_uncond: bool = True) -> list[Row]:
    """Rows as AUTOMATIC1111 stacks them: each picture with all its conditional prompts, then all unconditional."""
    rows = [Row(image, part) for image, parts in enumerate(prompts_of_images) for part in range(parts)]
    return rows + [Row(image, UNCOND) for image in range(len(prompts_of_images))] if with_uncond else rows


def _torn(count: int, frames: int) -> InputError:
    return InputError(
        f"{count} rows in a UNet call that do not hold whole results",
        f"all {frames} frames of each result in one call, with equally many prompts joined by AND",
        "use no AND in this prompt, or switch on the batching of conditional and unconditional guidance",
    )
