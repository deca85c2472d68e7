"""Whatever a form, an API, an infotext or a command line sends: parsers give what they promise, or a typed error."""

from __future__ import annotations

import argparse
import math
import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.core.methods import METHODS, find_method, round_up_batch
from lib_layerdiffuse.core.values import is_text
from lib_layerdiffuse.files.layer_catalogue import split_hash, with_hash
from lib_layerdiffuse.files.names import SLUG_BYTES, SLUG_LENGTH, slug
from lib_layerdiffuse.form.arguments import (
    ARGUMENTS,
    BY_NAME,
    LayerArguments,
    from_infotext,
    parse_mapping,
    to_infotext,
)
from lib_layerdiffuse.form.ranges import LONGEST_NAME, Range, Stem, is_path
from lib_layerdiffuse.form.values import shown

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=40)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
NUMBERS = [argument for argument in ARGUMENTS if argument.kind == "number"]
OTHERS = [argument for argument in ARGUMENTS if argument.kind != "image"]


@given(st.sampled_from(ARGUMENTS), anything)
def test_any_value_is_parsed_or_refused_by_its_name(argument, raw):
    try:
        value = argument.parse(raw)
    except InputError as error:
        assert argument.name in str(error) or argument.kind == "method"
        assert len(error.got) < 1000 and "\n" not in error.got
        return
    if argument.kind == "number":
        assert argument.minimum <= value <= argument.maximum
    if argument.kind == "switch":
        assert value in (True, False)
    if argument.kind == "method":
        assert value == "" or value in {method.id for method in METHODS}


@given(st.sampled_from(NUMBERS), st.floats(0, 1))
def test_numbers_of_the_range_survive_as_number_and_text(argument, share):
    number = argument.minimum + share * (argument.maximum - argument.minimum)
    assert argument.parse(number) == argument.parse(repr(number)) == argument.parse(f"  {number!r}\n") == number


@given(st.sampled_from([argument for argument in ARGUMENTS if argument.kind == "choice"]), st.data())
def test_choices_are_known_by_name_title_and_place_whatever_the_case(argument, data):
    place = data.draw(st.integers(0, len(argument.choices) - 1))
    choice = argument.choices[place]
    names = [choice, str(choice).upper(), f" {choice} "]
    names += [argument.titles[place].lower()] if argument.titles else []
    names += [place, str(place), float(place)] if isinstance(choice, str) else [float(choice)]
    assert {argument.parse(name) for name in names} == {choice}


def words() -> st.SearchStrategy[str]:
    """Texts as a field may hold them."""
    return st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=40)


@given(st.sampled_from(METHODS), st.floats(0, 1), words(), st.data())
def test_what_is_written_into_an_infotext_is_read_again(method, share, prompt, data):
    numbers = {row.name: row.minimum + share * (row.maximum - row.minimum) for row in NUMBERS}
    prompts = {row.name: prompt for row in ARGUMENTS if row.kind == "text"}
    chosen = {row.name: data.draw(st.sampled_from(row.choices)) for row in ARGUMENTS if row.kind == "choice"}
    sent = parse_mapping({"enabled": True, "method": method.id, **numbers, **prompts, **chosen})
    read = from_infotext(to_infotext(sent))
    for argument in OTHERS:
        if argument.needed(method):
            assert getattr(read, argument.name) == getattr(sent, argument.name), argument.name
    assert to_infotext(read) == to_infotext(sent) and to_infotext(LayerArguments()) == {}


@given(st.sampled_from(METHODS), st.data())
def test_methods_are_found_by_id_and_label_whatever_case_and_spaces(method, data):
    name = data.draw(st.sampled_from([method.id, method.label]))
    changed = data.draw(st.sampled_from([name, name.upper(), name.lower(), f"  {name} "]))
    assert find_method(changed) is find_method(name)


@given(st.text(max_size=200))
def test_a_name_of_no_method_is_refused_with_those_that_there_are(name):
    try:
        assert find_method(name) in METHODS
    except InputError as error:
        assert METHODS[0].id in str(error) or METHODS[0].label in str(error)


ranges = st.builds(
    lambda low, width, whole, multiple: Range(low, low + width, whole, multiple if whole else 1),
    st.integers(-100, 100),
    st.integers(0, 200),
    st.booleans(),
    st.sampled_from([1, 8]),
)


@given(ranges, anything)
def test_a_range_gives_a_plain_number_in_it_or_refuses(span, value):
    try:
        number = span.number(value)
    except ValueError:
        return
    assert type(number) is (int if span.whole else float) and span.low <= number <= span.high and number == value
    assert not span.whole or number % span.multiple == 0


@given(ranges, st.text(max_size=20) | st.integers().map(str) | st.floats().map(str))
def test_an_options_text_is_a_number_of_the_range_or_argparses_error(span, text):
    try:
        number = span.parse(text)
    except argparse.ArgumentTypeError as error:
        assert str(span) in str(error)
        return
    assert span.low <= number <= span.high and math.isfinite(number)


@given(st.text(max_size=300))
def test_texts_and_paths_that_pass_can_be_written_and_named(text):
    if is_text(text):
        assert text.encode("utf-8").decode("utf-8") == text and "\0" not in text
    if is_path(text):
        assert text.strip() and all(len(os.fsencode(part)) <= LONGEST_NAME for part in text.split("/"))


@given(st.text(max_size=120))
def test_a_stem_that_passes_names_no_other_folder(text):
    if Stem().holds(text):
        assert not set(text) & set('/\\:*?"<>|\0\n ') and not text.startswith(".") and 1 <= len(text) <= 100


@given(st.text(max_size=300))
def test_any_prompt_gives_a_name_of_a_file(text):
    name = slug(text)
    assert 1 <= len(name) <= SLUG_LENGTH and len(name.encode()) <= SLUG_BYTES
    assert not name.startswith("-") and not name.endswith("-")
    kinds = {unicodedata.category(letter)[0] for letter in name if letter != "-"}
    assert kinds <= {"L", "N", "M"} and slug(name) == name


@given(
    st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=60),
    st.binary(min_size=32, max_size=32),
)
def test_a_name_with_a_hash_comes_apart_again(name, digest):
    assert split_hash(with_hash(name, digest.hex())) == (name, digest.hex()[:10])


@given(anything)
def test_what_a_message_shows_of_a_value_is_short_and_on_one_line(raw):
    assert len(shown(raw)) <= 60 and "\n" not in shown(raw)


@given(st.integers(1, 64), st.integers(1, 8))
def test_a_rounded_batch_holds_whole_results_and_no_more_than_needed(images, frames):
    rounded = round_up_batch(images, frames)
    assert rounded % frames == 0 and images <= rounded < images + frames


@pytest.mark.parametrize("raw", ["nan", "inf", "-inf", "1e400", True, "٣.٥", "0x1"])
def test_words_that_python_takes_for_numbers_are_none_here(raw):
    try:
        assert math.isfinite(BY_NAME["weight"].parse(raw))
    except InputError as error:
        assert "weight" in str(error)
