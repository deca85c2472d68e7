"""Functions of the WebUI wrapped once, however often its page is reloaded, or for one call, and given back."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

MARK = "layerdiffuse_wrapped"


def key_of(name: str) -> str:
    """Where the owner of a wrapped function keeps ours and its own."""
    return f"layerdiffuse_{name}"


def wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Let `owner.name(...)` be `around(original, ...)`."""
    if is_wrapped(owner, name):
        return
    original = getattr(owner, name)

    @functools.wraps(original)
    def ours(*arguments: Any, **named: Any) -> Any:
        return around(original, *arguments, **named)

    setattr(owner, key_of(name), (ours, original))
    setattr(owner, name, ours)


def is_wrapped(owner: Any, name: str) -> bool:
    """Whether `wrap` did this already."""
    return hasattr(owner, key_of(name))


def unwrap(owner: Any, name: str) -> None:
    """Give the owner its own function back, unless another extension has put its own around ours."""
    ours, original = getattr(owner, key_of(name), (None, None))
    if ours is not None and getattr(owner, name, None) is ours:
        setattr(owner, name, original)
        delattr(owner, key_of(name))


def until_removed(owner: Any, name: str, around: Callable[..., Any]) -> Callable[[], None]:
    """Let this object's method be `around(original, ...)`; what is given back undoes it."""
    kept, former = weakref.ref(owner), vars(owner).get(name)
    removed, mark = False, object()  # not the function itself: a circle would keep all that `around` has

    def remove() -> None:
        nonlocal removed
        removed = True
        if getattr(vars(kept()).get(name), MARK, None) is not mark:  # another extension's is around ours
            return
        if former is None:
            delattr(kept(), name)
        else:
            setattr(kept(), name, former)

    def ours(*arguments: Any, **named: Any) -> Any:  # without the owner itself, which could not be freed
        original = former or getattr(type(kept()), name).__get__(kept())
        return original(*arguments, **named) if removed else around(original, *arguments, **named)

    setattr(ours, MARK, mark)
    setattr(owner, name, ours)
    return remove


def once(owner: Any, name: str, around: Callable[..., Any]) -> Callable[[], None]:
    """The same for the next call alone."""

    def first(original: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        remove()
        return around(original, *arguments, **named)

    remove = until_removed(owner, name, first)
    return remove
