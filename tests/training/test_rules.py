"""Rules of training data that no error tells of: a model only learns worse where one is broken."""

from __future__ import annotations

import json

import torch

from lib_layerdiffuse.training.diffusion.latents import VIEW_AMOUNT, encode_views
from lib_layerdiffuse.training.pictures.augment import zoom
from lib_layerdiffuse.training.pictures.captions import caption_variants
from lib_layerdiffuse.training.pictures.vocabulary import things_to_learn

from .toys import SIDE, toy_set, toy_vae


class Watching:
    """A codec that notes what it is given."""

    def __init__(self) -> None:
        self.given: list[torch.Tensor] = []

    def encode(self, vae, argb: torch.Tensor) -> torch.Tensor:
        self.given.append(argb.cpu())
        return vae.encode(argb[:, 1:] * 2 - 1).latent_dist.mean


def test_the_transparency_encoder_is_given_alpha_first() -> None:
    """Channels A,R,G,B, as the published encoder wants them."""
    data, codec = toy_set(3), Watching()
    encode_views(toy_vae(), data, [["a"]] * 3, 1, codec)
    (argb,) = codec.given
    views = zoom(data.rgba.float() / 255, torch.Generator().manual_seed(0), VIEW_AMOUNT)
    assert torch.equal(argb, views[:, [3, 0, 1, 2]]) and argb.shape == (3, 4, SIDE, SIDE)


def test_what_a_zoom_brings_in_from_outside_is_transparent_and_has_the_colours_of_the_edge() -> None:
    """An opaque red picture, made smaller or moved, has a border: invisible, and red still."""
    opaque = torch.tensor([1.0, 0, 0, 1]).view(1, 4, 1, 1).expand(64, 4, 32, 32)
    seen = zoom(opaque, torch.Generator().manual_seed(0))
    border = torch.cat([seen[..., 0, :], seen[..., -1, :], seen[..., 0], seen[..., -1]], dim=-1)
    assert (border[:, 3] == 0).any(dim=1).float().mean() > 0.5
    assert (seen[:, 0] > 0.999).all() and (seen[:, 1:3] == 0).all()
    assert (seen[:, 3, 12:20, 12:20] > 0.999).all()


def test_what_is_held_out_is_not_learnt_and_a_vocabulary_takes_its_own(tmp_path) -> None:
    data = toy_set(6)
    learnt, captions = things_to_learn(data, None)
    assert learnt.names == data.names[:4] and captions == [caption_variants(text) for text in data.captions[:4]]
    words = tmp_path / "words.json"
    words.write_text(json.dumps({"concepts": [{"concept": data.captions[5], "also": ["a dot"]}]}))
    learnt, captions = things_to_learn(data, str(words))
    assert set(learnt.captions) == {data.captions[5]} and all("a dot" in texts for texts in captions)
