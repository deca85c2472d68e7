"""What a user chooses to make layers by: a method, or a chain of methods that makes a whole set in several steps."""

from __future__ import annotations

from ..core.errors import InputError
from ..core.methods import METHODS, Method, find_method, methods_for
from ..sets.chains import CHAIN_ROWS, Chain, chain_named, chains_for

Way = Method | Chain
CHAINS = tuple(chain for chain in CHAIN_ROWS if len(chain.steps) > 1)  # those of one step are methods


def find_way(name: str) -> Way:
    """The chain or method with this id or label (case and spaces do not matter); InputError lists the valid ones."""
    chain = chain_named(name)
    if chain is not None:
        return chain
    try:
        return find_method(name)
    except InputError as error:
        known = ", ".join(row.id for row in (*METHODS, *CHAINS))
        raise InputError(error.got, f"one of {known}", error.what_to_do) from None


def ways_for(base: str | None = None, mode: str | None = None) -> tuple[Way, ...]:
    """The ways of a base and a mode, None standing for all: chains first, as they give the whole set."""
    methods = methods_for(base, mode)  # which checks both
    chains = [chain for chain in chains_for(base) if chain in CHAINS and mode in (None, chain.mode)]
    return (*chains, *methods)


def steps_of(way: Way) -> tuple[Method, ...]:
    """The methods of a chain, or the method itself."""
    return way.methods if isinstance(way, Chain) else (way,)
