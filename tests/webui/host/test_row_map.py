"""Orders of rows: found once, right for every way in which a WebUI cuts a step into calls, or refused."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.webui.host.row_map import UNCOND, Row, RowMap, sharing_order, step_rows


def in_groups(rows: list[Row], frames: int) -> bool:
    """Whether all frames of each result stand side by side, for one part of the guidance."""
    groups = [rows[start : start + frames] for start in range(0, len(rows), frames)]
    return all(
        [(row.image, row.part) for row in group] == [(group[0].image + frame, group[0].part) for frame in range(frames)]
        and group[0].image % frames == 0
        for group in groups
    )


def test_rows_of_a_step() -> None:
    assert step_rows([1, 1]) == [Row(0, 0), Row(1, 0), Row(0, UNCOND), Row(1, UNCOND)]
    assert step_rows([2, 1], with_uncond=False) == [Row(0, 0), Row(0, 1), Row(1, 0)]


@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_equally_many_prompts_come_into_order(frames, groups, parts) -> None:
    rows = step_rows([parts] * frames * groups)
    order = sharing_order(rows, frames)
    turned = rows if order is None else [rows[place] for place in order]
    assert in_groups(turned, frames) and sorted(order or range(len(rows))) == list(range(len(rows)))
    assert (order is None) == (turned == rows)


def test_no_order_where_none_is_needed() -> None:
    rows = [Row(image, part) for part in (UNCOND, 0) for image in range(3)]
    assert sharing_order(rows, 3) is None


@pytest.mark.parametrize("counts", [[2, 1, 1], [1, 2, 2], [2, 2, 1, 1, 1, 1]])
def test_unequal_prompts_are_refused(counts) -> None:
    with pytest.raises(InputError, match="equally many prompts"):
        sharing_order(step_rows(counts), 3)


def test_calls_take_their_rows_one_after_the_other() -> None:
    rows = RowMap(3)
    rows.begin_step(step_rows([2, 2, 2]))
    cond, uncond = rows.order(6), rows.order(3)
    assert [rows.rows[place] for place in cond] == [Row(image, part) for part in (0, 1) for image in range(3)]
    assert uncond is None


def test_each_step_begins_anew() -> None:
    rows = RowMap(2)
    for _ in range(3):
        rows.begin_step(step_rows([2, 2]))
        assert rows.order(6) == [4, 5, 0, 2, 1, 3]
    assert len(rows._orders) == 1


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_calls_that_tear_a_result_apart(chunk) -> None:
    rows = RowMap(3)
    rows.begin_step(step_rows([2, 2, 2]))
    with pytest.raises(InputError, match="batching of conditional"):  # noqa: PT012 one of four calls, by the chunk
        for _ in itertools.repeat(None, 4):
            rows.order(chunk)


@pytest.mark.parametrize(("count", "fits"), [(3, True), (6, True), (9, True), (2, False), (4, False)])
def test_without_a_map_the_hosts_order_is_trusted(count, fits) -> None:
    rows = RowMap(3)
    if fits:
        assert rows.order(count) is None
        return
    with pytest.raises(InputError, match=f"{count} rows"):
        rows.order(count)


def test_a_step_of_images_out_of_place() -> None:
    """Frames 1, 2, 3 stand side by side, but belong to two results."""
    with pytest.raises(InputError):
        sharing_order([Row(image, 0) for image in (1, 2, 3)], 3)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.randoms())
def test_any_order_of_whole_results_is_put_right(frames, groups, parts, random) -> None:
    """However a host shuffles the rows of a call, frames end side by side; each row stands once."""
    rows = step_rows([parts] * frames * groups)
    random.shuffle(rows)
    order = sharing_order(rows, frames)
    turned = rows if order is None else [rows[place] for place in order]
    assert in_groups(turned, frames) and sorted(turned, key=repr) == sorted(rows, key=repr)


@given(st.integers(2, 3), st.lists(st.integers(1, 3), min_size=1, max_size=6), st.data())
def test_a_call_is_in_order_or_refused_and_never_torn(frames, prompts, data) -> None:
    rows = step_rows(prompts)
    seen = RowMap(frames)
    seen.begin_step(rows)
    while seen.taken < len(rows):
        count = data.draw(st.integers(1, len(rows) - seen.taken))
        called = rows[seen.taken : seen.taken + count]
        try:
            order = seen.order(count)
        except InputError:
            return
        assert in_groups(called if order is None else [called[place] for place in order], frames)
