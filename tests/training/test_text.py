"""Captions, tokenizer and text model."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import CLIPTextModel

from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.training.diffusion.text import (
    build_text_encoder,
    build_tokenizer,
    encode_tokens,
    load_tokenizer,
    write_clip_files,
)
from lib_layerdiffuse.training.pictures.captions import caption_variants

TEXTS = ["red apple", "an eggplant", "glass of milk", "smiling face with heart-eyes"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return build_tokenizer(TEXTS, tmp_path_factory.mktemp("tokenizer"), merges=100)


def words(tokenizer, text: str) -> list[str]:
    numbers = encode_tokens(tokenizer, [text])[0].tolist()
    return tokenizer.convert_ids_to_tokens(numbers[1 : numbers.index(tokenizer.eos_token_id)])


def test_captions_come_with_articles_and_other_names():
    assert caption_variants("Red  apple", ["apple"]) == ["red apple", "apple", "a red apple", "an apple"]


def test_known_words_are_one_token(tokenizer):
    assert words(tokenizer, "A Red apple") == ["a</w>", "red</w>", "apple</w>"]
    assert words(tokenizer, "heart-eyes") == ["heart</w>", "-</w>", "eyes</w>"]


def test_any_text_can_be_spelt(tokenizer):
    for text in ("zebra", "naïve café", "(word:1.2), 42", "林檎"):
        numbers = encode_tokens(tokenizer, [text])[0]
        decoded = tokenizer.decode(numbers, skip_special_tokens=True)
        assert decoded.replace(" ", "") == text.replace(" ", "")


def test_the_layout_is_clips(tokenizer):
    numbers = encode_tokens(tokenizer, ["", "red " * 200])
    assert numbers.shape == (2, 77)
    assert numbers[0].tolist() == [tokenizer.bos_token_id] + [tokenizer.eos_token_id] * 76
    assert numbers[1, -1] == tokenizer.eos_token_id
    # WebUIs look for the comma's token, and take start and end for the last two of the vocabulary
    assert ",</w>" in tokenizer.get_vocab()
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (len(tokenizer) - 2, len(tokenizer) - 1)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id


def test_clips_files_can_be_written_of_a_loaded_tokenizer(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    write_clip_files(tokenizer, tmp_path)
    assert not (tmp_path / "tokenizer.json").exists()
    again = load_tokenizer(tmp_path)
    for text in (*TEXTS, "naïve zebra"):
        assert torch.equal(encode_tokens(again, [text]), encode_tokens(tokenizer, [text]))
    vocabulary = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))


def test_the_text_model_fits_the_tokenizer(tokenizer, tmp_path):
    model = build_text_encoder(tokenizer, width=32, layers=1, heads=2)
    assert model.config.eos_token_id == tokenizer.eos_token_id
    tokens = encode_tokens(tokenizer, ["red apple", "zebra"])
    assert model(tokens).last_hidden_state.shape == (2, 77, 32)
    model.save_pretrained(tmp_path)
    again = CLIPTextModel.from_pretrained(tmp_path)
    assert torch.equal(again(tokens).last_hidden_state, model(tokens).last_hidden_state)


@pytest.mark.parametrize("texts", [[], [""]])
def test_no_captions_are_an_error(tmp_path, texts):
    with pytest.raises(InputError, match="no caption"):
        build_tokenizer(texts, tmp_path)


def test_a_folder_without_tokenizer_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"vocab\.json"):
        load_tokenizer(tmp_path)
