"""The figures of benchmarks/matting.py against cases computed by hand, its chroma keys on made pictures, its tables."""

from __future__ import annotations

import builtins
import io
import json
import math
import tarfile
import zipfile

import numpy as np
import pytest

from benchmarks import matting, matting_cases, matting_figures, matting_pictures, matting_rivals
from benchmarks.matting_cases import Case, laid
from benchmarks.matting_figures import connectivity_error, gradient, gradient_error, largest_region, soft_share
from benchmarks.matting_rivals import Rival, Shot, trimap_of
from lib_layerdiffuse.api import load
from lib_layerdiffuse.core.errors import InputError, MissingExtraError

GREEN = np.broadcast_to(np.array([0.0, 0.7, 0.25]), (16, 16, 3))


def block(value: float = 1.0, outside: float = 0.0) -> np.ndarray:
    """A square of `value` in the middle of [16,16]."""
    alpha = np.full((16, 16), outside)
    alpha[4:12, 4:12] = value
    return alpha


def shot_of(alpha: np.ndarray, colour=(0.9, 0.1, 0.2), background: np.ndarray = GREEN, plain: bool = True) -> Shot:
    rgba = np.concatenate([np.broadcast_to(np.array(colour), (*alpha.shape, 3)), alpha[..., None]], axis=-1)
    return Shot(laid(rgba, background), trimap_of(alpha), background, plain)


# --- figures


def test_sums_and_means_by_hand():
    truth, alpha = np.array([[0.0, 1.0], [0.5, 1.0]]), np.array([[0.25, 1.0], [0.0, 0.5]])
    assert matting_figures.sad(alpha, truth) == pytest.approx((0.25 + 0.5 + 0.5) / 1000)
    assert matting_figures.mse(alpha, truth) == pytest.approx((0.0625 + 0.25 + 0.25) / 4)
    assert matting_figures.mae(alpha, truth) == pytest.approx(1.25 / 4)
    assert matting_figures.soft_error(alpha, truth) == pytest.approx(0.5)  # one pixel alone is soft
    assert math.isnan(matting_figures.soft_error(alpha, truth.round() * 0))


def test_share_of_soft_pixels_counts_what_is_visible():
    alpha = np.array([0, 11, 12, 128, 243, 244, 255, 255]) / 255
    assert soft_share(alpha) == pytest.approx(3 / 6)
    assert soft_share(np.zeros(4)) == 0


def test_opacity_is_the_mean_alpha_of_what_is_visible():
    assert matting_figures.opacity(np.array([0, 11, 51, 255]) / 255) == pytest.approx(0.6)
    assert matting_figures.opacity(np.zeros(4)) == 0


def test_gradient_of_a_step_by_hand():
    """Across a step, the smoothing filter sums to its whole and the slope to what lies beyond the step."""
    sigma, place = 1.4, np.arange(-4, 5)
    smooth = np.exp(-(place**2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
    slope = -place * smooth / sigma**2
    unit = math.sqrt(sum(s**2 * g**2 for s in slope for g in smooth))
    step = np.zeros((20, 20))
    step[:, 10:] = 1
    for column in (9, 10, 7, 13):
        beyond = sum(-slope[i] for i in range(9) if column + place[i] >= 10)
        assert gradient(step)[10, column] == pytest.approx(abs(beyond) * smooth.sum() / unit, abs=1e-12)
    assert gradient(step)[:, [0, 19]] == pytest.approx(0, abs=1e-12)
    assert gradient_error(step.T, np.zeros((20, 20))) == pytest.approx(np.square(gradient(step)).sum() / 1000)


def test_gradient_ignores_a_constant():
    assert gradient_error(block() * 0.5 + 0.3, block() * 0.5) == pytest.approx(0, abs=1e-12)


def test_connectivity_by_hand():
    """A faint speck beside the thing: 0.5 above what connects it, so it is half connected; a fainter one is whole."""
    truth, alpha = block(), block()
    assert connectivity_error(alpha, truth) == 0
    alpha[0, 0] = 0.5
    assert connectivity_error(alpha, truth) == pytest.approx(0.5 / 1000)
    alpha[0, 0] = 0.14
    assert connectivity_error(alpha, truth) == 0


def test_connectivity_of_a_dimmer_part_of_the_same_region():
    """0.6 where the truth is 1: connected up to 0.6 in both, so the truth lies 0.4 above and is 0.6 connected."""
    alpha = block()
    alpha[4, 4:12] = 0.6
    assert connectivity_error(alpha, block()) == pytest.approx(8 * 0.4 / 1000)


def test_largest_region_does_not_join_corners():
    mask = np.zeros((5, 5), bool)
    mask[0, :3] = mask[1, 3] = mask[2, 3] = True
    assert largest_region(mask).sum() == 3
    assert not largest_region(np.zeros((5, 5), bool)).any()


# --- methods


def test_trimap_is_eroded_by_two_pixels_and_holds_both_ends():
    trimap = trimap_of(block())
    assert (trimap == 1).sum() == 4 * 4
    assert (trimap == 0).sum() == 16 * 16 - 12 * 12
    for alpha in (block(0.4), np.full((16, 16), 0.6), np.ones((16, 16))):
        trimap = trimap_of(alpha)
        assert (trimap == 0).any() and (trimap == 1).any()


def test_a_loose_trimap_knows_less_and_never_nothing():
    alpha = np.zeros((64, 64))
    alpha[16:48, 16:48] = 1
    tight, loose = trimap_of(alpha), matting_rivals.loosened(trimap_of(alpha))
    assert ((tight == 1).sum(), (loose == 1).sum()) == (28**2, 16**2)
    assert ((tight == 0).sum(), (loose == 0).sum()) == (64**2 - 36**2, 64**2 - 48**2)
    assert (matting_rivals.loosened(trimap_of(block())) == 1).sum() == 16  # nothing would be left of it


def test_chroma_key_of_a_red_thing_on_green():
    truth = block(0.5)
    shot = shot_of(truth)
    full = math.sqrt((0.9**2 + 0.6**2 + 0.05**2) / 3)  # of red and green
    alpha = matting_rivals.distance_key(shot, full)
    assert alpha[0, 0] == 0
    assert alpha[8, 8] == pytest.approx((0.5 * full - 0.02) / (full - 0.02))
    assert matting_rivals.distance_key(shot, 0.1)[8, 8] == 1
    # half red, half green: (0.45, 0.4, 0.225) has no green to spare; at a tenth of red there is
    assert matting_rivals.excess_key(shot, 1.0)[8, 8] == 1
    faint = shot_of(block(0.1))
    assert matting_rivals.excess_key(faint, 1.0)[8, 8] == pytest.approx(1 - (0.64 - 0.245) / 0.45)
    assert matting_rivals.excess_key(faint, 1.0)[0, 0] == pytest.approx(0)


def test_the_limit_that_fits_best_is_chosen():
    truths = [block(0.5), block(0.8)]
    shots = [shot_of(truth) for truth in truths]
    key = matting_rivals.key_rivals()[0]
    fitted = key.fitted(shots, truths)
    pairs = list(zip(shots, truths, strict=True))
    errors = {limit: sum(abs(key.alpha(s, limit) - t).mean() for s, t in pairs) for limit in key.limits}
    best = min(errors, key=errors.get)
    assert best not in (key.limits[0], key.limits[-1])
    assert (fitted.alpha(shots[0]) == key.alpha(shots[0], best)).all()


def test_keys_apply_where_they_can():
    distance, excess, difference = matting_rivals.key_rivals()
    white = np.ones((16, 16, 3))
    scene = np.random.default_rng(0).random((16, 16, 3))
    cases = [(GREEN, True, (1, 1, 0)), (white, True, (1, 0, 0)), (scene, False, (0, 0, 1))]
    for background, plain, wanted in cases:
        shot = shot_of(block(), background=background, plain=plain)
        assert tuple(rival.applies(shot) for rival in (distance, excess, difference)) == wanted
    unknown = Shot(scene, trimap_of(block()))
    assert not any(rival.applies(unknown) for rival in (distance, excess, difference))


def test_unmixing_gives_the_thing_its_colours_back():
    alpha = block(0.3, outside=0.1)
    colour = matting_rivals.unmixed(shot_of(alpha), alpha)
    assert colour == pytest.approx(np.broadcast_to([0.9, 0.1, 0.2], (16, 16, 3)))


@pytest.mark.parametrize(
    ("module", "call"),
    [("pymatting", matting_rivals.pymatting_rivals), ("onnxruntime", lambda: matting_rivals.session("any.onnx"))],
)
def test_missing_libraries_are_told_with_the_line_to_type(monkeypatch, module, call):
    real = builtins.__import__

    def refuse(name, *rest, **named):
        if name == module:
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r'pip install "\.\[matting\]"'):
        call()


def test_networks_are_read_from_the_packages_that_hold_them(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.writestr("a/b.py", "")
        wheel.writestr("a/net.onnx", b"network")
    rows = {matting_rivals.ISNET_SIZE: {"chunks": [{"hash": "x"}, {"hash": "y"}]}}
    files = {"resources.json": json.dumps(rows).encode(), "x": b"net", "y": b"work"}
    with tarfile.open(tmp_path / "b.tgz", "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    (tmp_path / "c.onnx").write_bytes(b"network")
    for name in ("a.whl", "b.tgz", "c.onnx"):
        assert matting_rivals.network_bytes(tmp_path / name) == b"network"
    for name in ("d.whl", "d.tgz", "d.onnx"):
        with pytest.raises(InputError, match=r"\.onnx file or the package"):
            matting_rivals.network_bytes(tmp_path / name)


class Network:
    """Answers with the mean of its channels; knows what it was shown."""

    def get_inputs(self):
        return [type("Input", (), {"name": "input"})]

    def run(self, outputs, given):
        self.seen = given["input"]
        return [self.seen.mean(axis=1, keepdims=True)]


def test_networks_see_what_they_were_trained_on_and_answer_in_the_size_of_the_picture():
    network, shot = Network(), shot_of(block(), colour=(1.0, 1.0, 1.0), background=np.zeros((16, 16, 3)))
    alpha = matting_rivals.isnet_alpha(network, shot)
    assert network.seen.shape == (1, 3, 1024, 1024) and network.seen.dtype == np.float32
    assert network.seen[0, :, 512, 512] == pytest.approx((1 - 128 / 255) * 255 / 256)
    assert alpha.shape == (16, 16) and alpha[8, 8] > 0.4 and alpha[0, 0] == 0
    alpha = matting_rivals.u2net_alpha(network, shot)
    assert network.seen.shape == (1, 3, 320, 320)
    mean, deviation = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
    assert network.seen[0, :, 160, 160] == pytest.approx((1 - mean) / deviation, rel=1e-5)
    assert alpha[8, 8] == pytest.approx(1, abs=0.05) and alpha[0, 0] == pytest.approx(0, abs=0.05)


# --- cases, tables and pictures


def made_case(group: str = "solid", name: str = "one") -> Case:
    alpha, scene = block(0.5), np.random.default_rng(1).random((16, 16, 3))
    truth = np.concatenate([np.full((16, 16, 3), 0.25), alpha[..., None]], axis=-1)
    shots = matting_cases.shots_of(truth, scene, ("scene", "green"))
    ours = {"codec": truth.clip(0, 0.4)}
    return Case(group, name, truth, np.zeros((16, 16, 3)), shots, ours)


def test_shots_are_the_picture_laid_over_backgrounds_in_256_levels():
    case = made_case()
    shot = case.shots["green"]
    assert shot.plain and shot.key == pytest.approx([0, 0.7, 0.25])
    assert shot.picture == pytest.approx(laid(case.truth, shot.background), abs=0.5 / 255)
    assert (shot.picture * 255) == pytest.approx((shot.picture * 255).round())
    assert not case.shots["scene"].plain


def test_results_are_measured_by_picture_and_summed_up_by_group():
    cases = [made_case(name="one"), made_case(name="two"), made_case("soft", "three")]
    perfect = Rival("perfect", lambda shot: block(0.5))
    results = [*matting.own_results(cases), *matting.matting_results(cases, [perfect], matting.Kept(None))]
    rows = {(row["group"], row["method"], row["backdrop"]): row for row in matting.summary(results)}
    assert [key for key in rows if key[0] == "solid"] == [
        ("solid", "codec", "-"),
        ("solid", "perfect", "scene"),
        ("solid", "perfect", "green"),
    ]
    codec = rows["solid", "codec", "-"]
    assert codec["pictures"] == 2
    assert codec["MAE"] == pytest.approx(0.1 * 64 / 256) and codec["soft"] == pytest.approx(0.1)
    assert codec[matting.NEW] == pytest.approx(0.25 * 0.1 * 64 / 256)  # over black
    assert codec[matting.BACK] is None and codec[matting.SECONDS] is None
    assert rows["soft", "perfect", "green"]["SAD"] == 0
    text = matting.table(list(rows.values()), ["MAE", matting.BACK])
    assert "| codec | - | 0.0250 | - |" in text
    lines = matting.overview([row | {"MAE": row["MAE"] + 1} for row in rows.values()], "MAE").splitlines()
    assert lines[0] == "| MAE: method | shown on | solid | soft |"
    assert "| codec | - | 1.0250 | 1.0250 |" in lines and "| perfect | green | 1.0000 | 1.0000 |" in lines


def test_slow_methods_may_be_kept_to_some_groups():
    cases = [made_case("solid"), made_case("soft")]
    network = Rival("network", lambda shot: block(0.5), groups=("soft",))
    found = matting.matting_results(cases, [network], matting.Kept(None))
    assert [(result.case.group, result.backdrop) for result in found] == [("soft", "scene"), ("soft", "green")]


def test_a_result_that_explains_the_shot_goes_back_in_place():
    case = made_case()
    exact = matting.Result(case, "codec", "scene", case.truth).figures()[matting.BACK]
    wrong = matting.Result(case, "codec", "scene", case.truth * 0).figures()[matting.BACK]
    assert exact > 50 > 30 > wrong


def test_slow_alphas_are_kept_by_picture_and_method(tmp_path):
    calls = []
    rival = Rival("slow", lambda shot: calls.append(1) or block(0.5))
    kept, shots = matting.Kept(tmp_path / "kept"), list(made_case().shots.values())
    first = kept.alpha(rival, shots[0])
    again = kept.alpha(rival, shots[0])
    assert len(calls) == 1 and (first[0] == again[0]).all() and first[1] == again[1]
    kept.alpha(rival, shots[1])
    kept.alpha(Rival("other", rival.alpha), shots[0])
    assert len(calls) == 3


def test_methods_whose_files_are_not_named_are_listed_as_left_out(tmp_path):
    chosen = matting.options(["--isnet", str(tmp_path / "none.onnx")])
    found, left_out = matting.rivals_at_hand(chosen)
    assert [rival.name for rival in found[:3]] == [rival.name for rival in matting_rivals.key_rivals()]
    assert any(line.startswith("u2netp: no file is named, see --u2netp") for line in left_out)
    assert any(line.startswith("isnet: got") for line in left_out)


def test_pictures_show_the_columns_that_ran(tmp_path):
    cases = [made_case("solid", name) for name in "abcd"]
    key = matting_rivals.key_rivals()[0]
    results = [*matting.own_results(cases), *matting.matting_results(cases, [key], matting.Kept(None))]
    matting_pictures.draw_all(results, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["matting-solid.png"]
    with matting_pictures.Image.open(tmp_path / "matting-solid.png") as image:
        assert image.size == (4 * 18 - 2, 26 + 2 * 18)  # seen, true, codec, chroma key
        pixels = np.asarray(image.convert("RGB"))
    seen = cases[0].shots["scene"].picture
    assert np.abs(pixels[26:42, :16] / 255 - seen).mean() < 0.03


def test_opacity_of_a_painted_thing_is_compared_with_its_true_pictures():
    data = matting.tests_own_set().select([0, 1])
    data.captions[:] = ["ghost", "apple"]
    data.rgba[0, 3], data.rgba[1, 3] = 51, 255
    cases = [made_case(name="a ghost"), made_case(name="a rose")]
    matting_cases.add_true_opacity(cases, [("spirit", "ghost"), ("rose",)], data)
    off = [matting.Result(case, "codec", "-", case.truth).figures()[matting.OPACITY] for case in cases]
    assert off[0] == pytest.approx(0.5 - 0.2) and math.isnan(off[1])


def test_edges_and_thin_lines_are_not_see_through():
    line = np.zeros((16, 16))
    line[:, 7:9] = 0.5
    share = matting_figures.see_through_share
    assert (share(line), share(block()), share(np.zeros((4, 4)))) == (0, 0, 0)
    assert share(block(0.5)) == pytest.approx(36 / 64)


def test_softened_alpha_is_lower_and_colours_stay():
    rgba = matting.tests_own_set().rgba[:3]
    soft = matting_cases.softened(rgba)
    assert (soft[:, :3] == rgba[:, :3]).all()
    assert (soft[:, 3] <= rgba[:, 3]).all() and soft[:, 3].float().mean() < 0.9 * rgba[:, 3].float().mean()


def test_groups_are_drawn_by_the_share_of_soft_alpha(tmp_path):
    data = matting.tests_own_set()
    folder = tmp_path / "animals"
    folder.mkdir()
    for place in (folder, tmp_path / "symbols"):
        place.mkdir(exist_ok=True)
        rgba = np.concatenate([np.full((20, 20, 3), 90), np.full((20, 20, 1), 128)], axis=-1).astype(np.uint8)
        rgba[:4] = 0
        matting_pictures.Image.fromarray(rgba).save(place / "ghost.png")
    groups = matting_cases.groups_of(data, 4, tmp_path)
    assert list(groups) == ["solid", "softened", "thin", "stamps"] and len(groups["stamps"]) == 1
    shares = {name: [soft_share(a) for a in rgba[:, 3].numpy() / 255] for name, rgba in groups.items()}
    assert max(shares["solid"]) < 0.12 and min(shares["thin"]) >= 0.2 and min(shares["softened"]) > 0.8
    assert len(groups["solid"]) == 4
    with pytest.raises(InputError, match="no PNG"):
        matting_cases.see_through_stamps(tmp_path / "symbols", 1)


@pytest.mark.long  # of a measurement alone: no user runs it
def test_painted_cases_show_matting_what_it_would_see():
    """By the demo model: alone, the picture laid over backgrounds; in a set, the blended picture and its background."""
    host, scenes = load(), matting_cases.Scenes(1)
    things = matting_cases.things_to_paint(None, 1)
    (alone,) = matting_cases.painted_singles(host, things, scenes)
    assert alone.name == "a ghost" and 0.05 < alone.truth[..., 3].mean() < 0.95
    assert alone.shots["green"].picture == pytest.approx(laid(alone.truth, alone.shots["green"].background), abs=0.002)
    assert np.abs(alone.shots["scene"].background - alone.unseen).mean() > 0.05
    for case in matting_cases.painted_sets(host, things, scenes, None):  # none, where the model has no joint method
        shot = case.shots[matting_cases.SET_SCENE]
        assert case.ours["painted foreground"] is case.truth
        assert not shot.plain and shot.picture.shape == shot.background.shape == (128, 128, 3)
        assert np.abs(shot.picture - shot.background).mean() > 0.01
