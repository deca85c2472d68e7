"""A picture cut by another one's alpha: what the background lent to its edges is taken out."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lib_layerdiffuse.api import cut
from lib_layerdiffuse.cli.main import main
from lib_layerdiffuse.core.errors import InputError

SIDE = 64
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE] - SIDE / 2
ALPHA = ((24 - np.hypot(ROWS, COLUMNS)) * 32).clip(0, 255).astype(np.uint8)  # soft for eight pixels
COLOUR = np.array([200, 60, 40])
GROUND = np.dstack([30 + COLUMNS, 120 + ROWS, np.full((SIDE, SIDE), 200)])  # a slope


def painted(alpha: np.ndarray) -> Image.Image:
    share = alpha[..., None] / 255
    return Image.fromarray((COLOUR * share + GROUND * (1 - share)).round().astype(np.uint8))


def transparent(alpha: np.ndarray) -> Image.Image:
    made = Image.new("RGBA", alpha.shape[::-1])
    made.putalpha(Image.fromarray(alpha))
    return made


@pytest.mark.parametrize("most", [255, 140])
def test_edges_and_glass_are_rid_of_the_background(most) -> None:
    alpha = np.minimum(ALPHA, most).astype(np.uint8)
    made = np.array(cut(painted(alpha), transparent(alpha)))
    seen = alpha > 64
    assert np.array_equal(made[..., 3], alpha)
    assert np.abs(made[seen][:, :3].astype(int) - COLOUR).mean() < 6
    before = np.abs(np.array(painted(alpha))[seen & (alpha < 255)].astype(int) - COLOUR).mean()
    after = np.abs(made[seen & (alpha < 255)][:, :3].astype(int) - COLOUR).mean()
    assert after < before / 4


def test_what_is_opaque_keeps_its_colours_to_the_level_and_no_background_is_needed() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    for alpha in (ALPHA, np.full((SIDE, SIDE), 255, np.uint8)):
        made = np.array(cut(Image.fromarray(noise), transparent(alpha)))
        assert np.array_equal(made[alpha == 255][:, :3], noise[alpha == 255])


def test_an_alpha_of_another_size_is_fitted_and_of_other_proportions_refused() -> None:
    assert cut(painted(ALPHA).resize((128, 128)), transparent(ALPHA)).size == (128, 128)
    with pytest.raises(InputError, match="same proportions"):
        cut(painted(ALPHA), transparent(ALPHA[:32]))


def test_the_command_writes_the_cut(tmp_path, capsys) -> None:
    painted(ALPHA).save(tmp_path / "b.png")
    transparent(ALPHA).save(tmp_path / "a.png")
    words = ["cut", str(tmp_path / "b.png"), str(tmp_path / "a.png"), "--out", str(tmp_path / "c.png")]
    assert main(words) == 0 and "c.png written" in capsys.readouterr().out
    assert np.array_equal(np.array(Image.open(tmp_path / "c.png"))[..., 3], ALPHA)
    (tmp_path / "x.png").write_text("no picture")
    assert main(["cut", str(tmp_path / "x.png"), *words[2:]]) == 2
