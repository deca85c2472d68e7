"""Where "stop at", a share of the steps, lies in the time that a network is told."""

from __future__ import annotations

import math

from .errors import InputError

LAST_TIMESTEP = 999


def stop_timestep(stop_at: float) -> float:
    """The timestep at and below which the UNet is the plain one: 999 * (1 - stop_at); never for 1, always for 0."""
    return stop_limit(stop_at, LAST_TIMESTEP * (1 - stop_at))


def stop_limit(stop_at: float, value: float) -> float:
    """`value`, with the two ends of the slider free of rounding: samplers may leave the trained range by a little.

    InputError outside of it.
    """
    if not 0 <= stop_at <= 1:
        raise InputError(f"stop at {stop_at}", "a number from 0 to 1", "choose 1 to never stop")
    return {0.0: math.inf, 1.0: -math.inf}.get(float(stop_at), value)
