"""The stack of layers: operations, undo in bounded memory, and what a painter is asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.sets.layer_set import MOST_LAYERS
from lib_layerdiffuse.sets.stack import HISTORY_STEPS, PaintRequest, Stack, StackLayer, StackState, bytes_of, paint_all

SIZE = (48, 40)


def square(colour, box=(8, 8, 24, 24), size=SIZE) -> Image.Image:
    """A coloured square on nothing."""
    image = Image.new("RGBA", size, (*colour, 0))
    ImageDraw.Draw(image).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=(*colour, 255))
    return image


class Painter:
    """Paints a square of a colour that the seed says, and remembers what it was asked."""

    def __init__(self):
        self.requests: list[PaintRequest] = []

    def __call__(self, request: PaintRequest) -> Image.Image:
        self.requests.append(request)
        size, colour = (request.width, request.height), (request.seed % 256, 100, 50)
        return Image.new("RGBA", size, (*colour, 255)) if request.role == "background" else square(colour, size=size)


@pytest.fixture
def painter():
    return Painter()


@pytest.fixture
def stack(painter):
    """A background with two painted layers."""
    made = Stack.of_size(*SIZE)
    made.paint(painter, made.request_background("a meadow", 1))
    made.paint(painter, made.request_layer("a red apple", 2, 0.7))
    made.paint(painter, made.request_layer("a banana", 3))
    return made


def keys(stack):
    return [layer.key for layer in stack.state.layers]


def names(stack):
    return [layer.name for layer in stack.state.layers]


def test_each_layer_is_painted_on_the_composite_so_far(stack, painter):
    background, apple, banana = painter.requests
    assert background.background is None and background.role == "background"
    assert apple.background.getpixel((10, 10)) == (1, 100, 50, 255)
    assert banana.background.getpixel((10, 10)) == (2, 100, 50, 255)
    assert [(layer.prompt, layer.seed, layer.weight, layer.role) for layer in stack.state.layers] == [
        ("a meadow", 1, 1.0, "background"),
        ("a red apple", 2, 0.7, "foreground"),
        ("a banana", 3, 1.0, "foreground"),
    ]
    assert stack.state.composite().getpixel((10, 10)) == (3, 100, 50, 255)


def test_a_thing_on_nothing_is_painted_where_nothing_shows(painter):
    stack = Stack.of_size(*SIZE)
    stack.paint(painter, stack.request_layer("a red apple"))
    assert painter.requests[0].background is None and painter.requests[0].role == "foreground"
    stack.update(keys(stack)[0], visible=False)
    assert stack.request_layer("a banana").background is None


def test_a_layer_again_is_painted_on_what_is_below_it_and_keeps_its_place(stack, painter):
    _, apple, banana = keys(stack)
    stack.update(apple, opacity=0.5, name="My apple")
    stack.paint(painter, stack.request_again(apple, "a pear", 9, 1.2))
    assert painter.requests[-1].background.getpixel((10, 10)) == (1, 100, 50, 255)
    again = stack.state.layer(apple)
    assert (again.prompt, again.seed, again.weight, again.opacity, again.name) == ("a pear", 9, 1.2, 0.5, "My apple")
    assert keys(stack)[1:] == [apple, banana]
    stack.paint(painter, stack.request_again(keys(stack)[0], "a beach", 7))
    assert painter.requests[-1].role == "background" and names(stack)[0] == "a beach"


def test_what_was_painted_for_a_layer_that_was_deleted_meanwhile_is_not_lost(stack, painter):
    apple = keys(stack)[1]
    request = stack.request_again(apple, "a pear", 9)
    stack.delete(apple)
    stack.take(request, painter(request))
    assert names(stack) == ["a meadow", "a banana", "a pear"]


def test_seeds_are_drawn_before_painting(stack):
    drawn = {stack.request_layer("a cat").seed for _ in range(8)}
    assert len(drawn) > 1 and min(drawn) >= 0
    assert stack.request_layer("a cat", 0).seed == 0


def test_sizes_are_rounded_up_for_painting_and_the_answer_is_cut_to_the_canvas(painter):
    stack = Stack.of_size(45, 33)
    stack.paint(painter, stack.request_background("a meadow", 4))
    stack.paint(painter, stack.request_layer("a cat", 5))
    assert [(each.width, each.height) for each in painter.requests] == [(48, 40), (48, 40)]
    assert painter.requests[1].background.size == (48, 40)
    assert all(layer.picture.size == (45, 33) for layer in stack.state.layers)
    wrong = stack.take(stack.request_layer("a dog", 6), Image.new("RGBA", (10, 10)))
    assert wrong.picture.size == (45, 33)


def test_hidden_and_see_through_layers_count_as_what_they_show(stack):
    _, apple, banana = keys(stack)
    stack.update(banana, visible=False)
    assert stack.state.composite().getpixel((10, 10)) == (2, 100, 50, 255)
    stack.update(apple, opacity=0.5)
    assert stack.state.composite().getpixel((10, 10)) == (2, 100, 50, 255)  # of 1 and 2, rounded
    stack.update(apple, opacity=0.0)
    assert stack.request_layer("a cat").background.getpixel((10, 10)) == (1, 100, 50, 255)


def test_order(stack):
    ground, apple, banana = keys(stack)
    stack.move(apple, 1)
    assert keys(stack) == [ground, banana, apple]
    stack.move(apple, 5)
    stack.move(banana, -5)
    assert keys(stack) == [ground, banana, apple]
    stack.move(ground, 2)
    assert keys(stack) == [ground, banana, apple], "a background stays below"


def test_moving_and_scaling(stack):
    apple = keys(stack)[1]
    stack.update(apple, left=-4, top=6)
    assert stack.state.composite(2).getpixel((4, 14)) == (2, 100, 50, 255)
    middle = stack.state.layer(apple).middle
    half = stack.update(apple, scale=0.5)
    assert half.size == (24, 20) and half.middle == middle and half.picture.size == SIZE
    whole = stack.update(apple, scale=1.0)
    assert (whole.left, whole.top) == (-4, 6), "scaling there and back loses nothing"


def test_scaling_bleeds_no_hidden_colour():
    stack = Stack.of_size(16, 16)
    picture = Image.new("RGBA", (16, 16), (0, 255, 0, 0))
    picture.paste((200, 0, 0, 255), (4, 4, 12, 12))
    stack.add_picture(picture, scale=0.6)
    pixels = np.asarray(stack.state.layers[0].laid().picture)
    assert pixels[pixels[..., 3] > 8][:, 1].max() < 30


def test_given_pictures():
    stack = Stack.of_size(*SIZE)
    large = stack.add_picture(Image.new("RGB", (480, 100), "red"), "Banner")
    assert large.size == (48, 10) and large.middle == (24, 20)
    small = stack.add_picture(Image.new("RGBA", (10, 10), "blue"))
    assert small.scale == 1 and small.middle == (24, 20)
    ground = stack.set_background(Image.new("RGB", (100, 40), "white"))
    assert ground.picture.size == SIZE and stack.state.layers[0] is ground and stack.state.background is ground
    other = stack.set_background(Image.new("RGB", SIZE, "black"))
    assert stack.state.layers[0] is other and len(stack.state.layers) == 3


def test_replacing_by_a_picture(stack):
    ground, apple, _ = keys(stack)
    stack.update(apple, left=10, top=0, opacity=0.5)
    middle = stack.state.layer(apple).middle
    new = stack.replace_picture(apple, Image.new("RGBA", (20, 10), "blue"), "cut-out.png")
    assert new.middle == middle and new.opacity == 0.5 and new.name == "cut-out.png" and new.seed is None
    assert stack.replace_picture(ground, Image.new("L", (300, 300), 9)).picture.size == SIZE


def test_duplicates_share_their_picture(stack):
    apple = keys(stack)[1]
    before = stack.bytes
    second = stack.duplicate(apple)
    assert keys(stack)[2] == second.key and second.picture is stack.state.layer(apple).picture
    assert stack.bytes == before
    assert stack.duplicate(keys(stack)[0]).role == "layer", "there is one background"


def test_undo_and_redo(stack):
    states = [stack.state]
    apple = keys(stack)[1]
    for step in (lambda: stack.update(apple, opacity=0.5), lambda: stack.move(apple, 1), lambda: stack.delete(apple)):
        step()
        states.append(stack.state)
    for state in reversed(states[:-1]):
        assert stack.undo() and stack.state is state
    for state in states[1:]:
        assert stack.redo() and stack.state is state
    assert not stack.redo()
    stack.undo()
    stack.update(keys(stack)[0], visible=False)
    assert not stack.can_redo and stack.can_undo
    while stack.undo():
        pass
    assert stack.state == StackState(*SIZE)


def test_what_changes_nothing_is_no_step(stack):
    apple, before = keys(stack)[1], stack.state
    stack.update(apple, opacity=1.0)
    stack.move(apple, 0)
    assert stack.state is before
    stack.undo()
    assert len(stack.state.layers) == 2


def test_keys_are_never_used_again(stack):
    last = keys(stack)[-1]
    stack.delete(last)
    assert stack.add_picture(Image.new("RGBA", (4, 4))).key > last


def test_history_is_bounded_in_bytes_and_pictures_are_counted_once(painter):
    one = 4 * SIZE[0] * SIZE[1]
    stack = Stack(StackState(*SIZE), history_bytes=6 * one)
    stack.paint(painter, stack.request_background("a meadow", 1))
    key = stack.paint(painter, stack.request_layer("a cat", 0)).key
    for seed in range(20):
        stack.paint(painter, stack.request_again(key, "a cat", seed))
        stack.update(key, opacity=(seed + 1) / 40)
        assert stack.bytes <= 6 * one
    undone = 0
    while stack.undo():
        undone += 1
    assert 4 <= undone < 20 and bytes_of([stack.state]) == 2 * one
    while stack.redo():
        pass
    assert stack.state.layer(key).seed == 19


def test_history_is_bounded_in_steps(stack):
    key = keys(stack)[1]
    for step in range(HISTORY_STEPS + 50):
        stack.update(key, left=step + 1)
    assert sum(iter(stack.undo, False)) == HISTORY_STEPS


def test_one_picture_larger_than_the_history_is_kept():
    stack = Stack(StackState(*SIZE), history_bytes=10)
    stack.set_background(Image.new("RGB", SIZE, "red"))
    assert len(stack.state.layers) == 1 and not stack.can_undo


def test_a_hundred_layers(painter):
    stack = Stack.of_size(*SIZE)
    stack.paint(painter, stack.request_background("a meadow", 1))
    requests = [lambda each, seed=seed: each.request_layer(f"thing {seed}", seed) for seed in range(2, 101)]
    assert len(paint_all(stack, painter, requests)) == 99
    assert len(stack.state.layers) == 100
    assert stack.state.composite().getpixel((10, 10)) == (100, 100, 50, 255)
    assert stack.state.composite(50).getpixel((10, 10)) == (50, 100, 50, 255)
    for key in keys(stack)[1::2]:
        stack.delete(key)
    assert len(stack.state.layers) == 50


def test_more_layers_than_anybody_needs_are_refused_and_nothing_is_lost():
    stack, dot = Stack.of_size(8, 8), Image.new("RGBA", (1, 1))
    for _ in range(MOST_LAYERS):
        stack.add_picture(dot)
    before = stack.state
    with pytest.raises(InputError, match="257 layers"):
        stack.add_picture(dot)
    assert stack.state is before


@pytest.mark.parametrize(
    "changes",
    [
        {"opacity": 1.5},
        {"opacity": float("nan")},
        {"scale": 0},
        {"scale": 100},
        {"scale": float("nan")},
        {"scale": "2"},
        {"left": 2**40},
        {"weight": 3},
        {"name": "x" * 2000},
        {"name": "\0"},
        {"role": "king"},
    ],
    ids=str,
)
def test_values_that_cannot_be_are_refused_and_nothing_changes(stack, changes):
    before = stack.state
    with pytest.raises(InputError):
        stack.update(keys(stack)[1], **changes)
    assert stack.state is before


def test_layers_that_are_gone_and_empty_prompts_are_told(stack):
    for call in (stack.delete, stack.duplicate, lambda key: stack.move(key, 1), lambda key: stack.update(key, left=1)):
        with pytest.raises(InputError, match="not there"):
            call(999)
    with pytest.raises(InputError, match="empty prompt"):
        stack.request_layer("  ")


def test_a_scaled_layer_must_not_be_larger_than_any_picture():
    stack = Stack.of_size(*SIZE)
    key = stack.add_picture(Image.new("RGBA", (3000, 4)), scale=0.1).key
    with pytest.raises(InputError, match="scaled to 9000"):
        stack.update(key, scale=3.0)


def test_states_never_change(stack):
    state, pixels = stack.state, stack.state.composite().tobytes()
    stack.update(keys(stack)[1], scale=0.3, opacity=0.1)
    stack.replace_picture(keys(stack)[2], Image.new("RGBA", (3, 3), "red"))
    assert state.composite().tobytes() == pixels
    assert replace(state, width=50) != state


def test_a_layer_that_is_not_scaled_keeps_every_value_even_where_it_is_clear():
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (5, 6, 4), dtype=np.uint8))
    picture.putpixel((0, 0), (10, 20, 30, 0))
    layer = StackLayer(1, "x", picture)
    assert layer.laid().picture.tobytes() == picture.tobytes()


@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_a_layer_has_at_least_one_pixel(scale):
    layer = StackLayer(1, "x", Image.new("RGBA", (3, 30), "red"), scale=scale)
    assert layer.laid().picture.size == layer.size == (max(1, round(3 * scale)), max(1, round(30 * scale)))
