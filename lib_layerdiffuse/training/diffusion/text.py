"""Captions, a small CLIP tokenizer of one's own, and a small CLIP text model, in the files that every host loads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ...core.errors import InputError

START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"
CONTEXT = 77
SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
# CLIP's own: contractions, runs of letters, single digits, runs of anything else
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def build_tokenizer(texts: Iterable[str], folder: str | Path, merges: int = 2000) -> CLIPTokenizer:
    """Train a lower-case byte-level BPE on `texts` and write it as a CLIP tokenizer; any other text is spelt in bytes.

    The vocabulary is laid out as CLIP's: bytes, bytes that end a word, merges, start, end. InputError for no texts.
    """
    texts = sorted(set(texts))
    if not any(texts):
        raise InputError("no caption", "at least one", "prepare the set with captions")
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=WORD_END))
    tokenizer.normalizer = normalizers.Lowercase()
    split = pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.BPEDecoder(suffix=WORD_END)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=2 * len(alphabet) + merges,
        initial_alphabet=alphabet,
        end_of_word_suffix=WORD_END,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    learnt = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    return _write_tokenizer(Path(folder), alphabet, learnt)


def _write_tokenizer(folder: Path, alphabet: Sequence[str], merges: Sequence[tuple[str, str]]) -> CLIPTokenizer:
    tokens = [*alphabet, *(char + WORD_END for char in alphabet), *("".join(pair) for pair in merges), START, END]
    write_files(folder, list(dict.fromkeys(tokens)), merges)
    return load_tokenizer(folder)


def write_files(folder: str | Path, tokens: Sequence[str], merges: Sequence[Sequence[str]]) -> None:
    """The four files of a CLIP tokenizer, as every version of transformers reads them."""
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": CONTEXT, "do_lower_case": True, **special}
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    files = {
        "vocab.json": json.dumps({token: number for number, token in enumerate(tokens)}, ensure_ascii=False),
        "merges.txt": "\n".join(lines) + "\n",
        "special_tokens_map.json": json.dumps(special, indent=2),
        "tokenizer_config.json": json.dumps(settings, indent=2),
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")


def write_clip_files(tokenizer: CLIPTokenizer, folder: str | Path) -> None:
    """CLIP's files of a loaded tokenizer, in place of the tokenizer.json that newer versions save and older misread."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    write_files(folder, [token for token, _ in tokens], merges)
    (Path(folder) / "tokenizer.json").unlink(missing_ok=True)


def load_tokenizer(folder: str | Path) -> CLIPTokenizer:
    """The CLIP tokenizer in `folder`; InputError when there is none."""
    if not (Path(folder) / "vocab.json").exists():
        raise InputError(f"{folder} without vocab.json", "a CLIP tokenizer's folder", "name the folder that holds it")
    return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)


def build_text_encoder(tokenizer: CLIPTokenizer, width: int = 128, layers: int = 2, heads: int = 4) -> CLIPTextModel:
    """A fresh CLIP text model for `tokenizer`; its last hidden state [B,77,width] conditions the UNet."""
    tokens: dict[str, Any] = {name: getattr(tokenizer, name) for name in SPECIAL_TOKENS}
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=CONTEXT,
        projection_dim=width,
        **tokens,
    )
    return CLIPTextModel(config)


def encode_tokens(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> torch.Tensor:
    """Token numbers int64 [B,77], padded with the end token."""
    return tokenizer(
        list(texts), padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="pt"
    ).input_ids
