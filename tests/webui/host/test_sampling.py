"""The sampler call, taken over on the instance and given back."""

from __future__ import annotations

import pytest

from lib_layerdiffuse.webui.host.sampling import give_back, take_over


class Sampler:
    """What WebUIs call once a pass."""

    def launch_sampling(self, steps, func):
        return steps, func()


def test_around_stands_in_for_the_sampling() -> None:
    sampler, order = Sampler(), []

    def around(run):
        order.append("before")
        result = run()
        order.append("after")
        return result, "kept"

    take_over(sampler, around)
    assert sampler.launch_sampling(3, lambda: order.append("sampling")) == ((3, None), "kept")
    assert order == ["before", "sampling", "after"]


def test_a_sampler_that_is_used_again_keeps_the_latest_only() -> None:
    sampler = Sampler()
    for name in ("first", "second"):
        take_over(sampler, lambda run, name=name: (name, run()))
    assert sampler.launch_sampling(1, lambda: "x") == ("second", (1, "x"))


def test_giving_back_leaves_no_trace() -> None:
    sampler = Sampler()
    take_over(sampler, lambda run: "ours")
    give_back(sampler)
    give_back(sampler)
    assert not vars(sampler) and sampler.launch_sampling(1, lambda: 2) == (1, 2)


def test_somebody_elses_replacement_is_kept() -> None:
    sampler = Sampler()
    sampler.launch_sampling = theirs = lambda steps, func: ("theirs", func())
    take_over(sampler, lambda run: ("ours", run()))
    assert sampler.launch_sampling(1, lambda: 2) == ("ours", ("theirs", 2))
    sampler.launch_sampling = theirs
    give_back(sampler)
    assert sampler.launch_sampling is theirs


def test_no_sampler() -> None:
    give_back(None)


def test_exceptions_pass() -> None:
    sampler = Sampler()
    take_over(sampler, lambda run: run())
    with pytest.raises(KeyError):
        sampler.launch_sampling(1, lambda: {}["x"])
