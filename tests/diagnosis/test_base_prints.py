"""The print of a base: it tells about how far another network is, and nothing of what is no such network."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lib_layerdiffuse.cli.main import main
from lib_layerdiffuse.core.errors import WeightsError
from lib_layerdiffuse.diagnosis.base_prints import drift_of, file_name, print_of, read_print
from lib_layerdiffuse.files.demo_folder import DEMO_FOLDER

NETWORK = "model.diffusion_model."
CHECKPOINT = DEMO_FOLDER / "demo.safetensors"


@pytest.fixture(scope="module")
def base() -> dict[str, torch.Tensor]:
    """The parameters of the demo model's UNet."""
    state = load_file(CHECKPOINT)
    return {key.removeprefix(NETWORK): value.float() for key, value in state.items() if key.startswith(NETWORK)}


def moved(base: dict[str, torch.Tensor], drift: float, rank: int | None = None) -> dict[str, torch.Tensor]:
    """Every weight moved by `drift` of its length, by noise or by a product of low rank."""
    generator, made = torch.Generator().manual_seed(1), {}
    for name, weight in base.items():
        rows = weight.flatten(1) if weight.ndim > 1 else weight[:, None]
        noise = torch.randn(rows.shape, generator=generator)
        if rank is not None:
            noise = torch.randn(len(rows), rank, generator=generator) @ torch.randn(
                rank, rows.shape[1], generator=generator
            )
        made[name] = weight + (noise * (drift * weight.norm() / noise.norm())).reshape(weight.shape)
    return made


@pytest.mark.parametrize("rank", [None, 8])
@pytest.mark.parametrize("drift", [0.05, 0.3])
def test_a_drift_is_told(base, drift, rank) -> None:
    found = read_print(DEMO_FOLDER / file_name("demo")).drift(moved(base, drift, rank).get)
    assert found == pytest.approx(drift, rel=0.15)


def test_a_layer_counts_by_its_size() -> None:
    network = {"large": torch.ones(80, 80), "small": torch.ones(8, 8)}
    found = print_of("sd15", "made up", network.items()).drift((network | {"large": torch.full((80, 80), 1.1)}).get)
    assert found == pytest.approx(0.1 * (6400 / 6464) ** 0.5, rel=1e-3)


def test_the_demo_models_print_is_that_of_its_checkpoint(base) -> None:
    shipped = read_print(DEMO_FOLDER / file_name("demo"))
    assert shipped.drift(base.get) < 1e-3
    assert shipped.drift({name: value.half() for name, value in base.items()}.get) < 1e-3


def test_another_network_is_not_compared(base) -> None:
    shipped = read_print(DEMO_FOLDER / file_name("demo"))
    assert shipped.drift({name: value[:1] for name, value in base.items()}.get) is None
    assert shipped.drift({}.get) is None
    assert shipped.drift({name: torch.full_like(value, torch.nan) for name, value in base.items()}.get) is None


def test_loras_in_the_weights_do_not_count(tmp_path) -> None:
    layer = nn.Linear(32, 16)
    modules = {"middle.proj": layer}
    made = print_of("sd15", "base", [("middle.proj.weight", layer.weight)])
    (tmp_path / file_name("sd15")).write_text(made.to_json())
    layer.network_weights_backup = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight += 1
    assert drift_of(modules, "sd15", [tmp_path]) < 1e-3
    layer.network_weights_backup = None
    assert drift_of(modules, "sd15", [tmp_path]) > 1
    assert drift_of(modules, "sdxl", [tmp_path]) is None
    assert drift_of({"middle.proj": layer.to(torch.float8_e4m3fn)}, "sd15", [tmp_path]) is None
    assert drift_of({"middle.proj": nn.Linear(32, 16, device="meta")}, "sd15", [tmp_path]) is None


def broken(told: dict, way: str) -> str:
    """The text of a print that is broken in some way."""
    first = next(iter(told["layers"]))
    ways = {
        "cut off": lambda: None,
        "another format": lambda: told.update(format="x"),
        "no layers": lambda: told.pop("layers"),
        "other numbers": lambda: told["layers"][first].__setitem__(1, "AAAA"),
        "no base64": lambda: told["layers"][first].__setitem__(1, "*"),
        "a list": lambda: told.update(layers=[1]),
    }
    ways[way]()
    return json.dumps(told)[: 100 if way == "cut off" else None]


@pytest.mark.parametrize("way", ["cut off", "another format", "no layers", "other numbers", "no base64", "a list"])
def test_a_broken_print_is_an_error_and_no_diagnosis_fails_of_it(tmp_path, way) -> None:
    layer = nn.Linear(4, 4)
    path = tmp_path / file_name("sd15")
    path.write_text(broken(json.loads(print_of("sd15", "b", [("a.weight", layer.weight)]).to_json()), way))
    with pytest.raises(WeightsError, match="no print of a base"):
        read_print(path)
    assert drift_of({"a": layer}, "sd15", [tmp_path]) is None


def test_the_command_writes_a_print_and_compares(tmp_path, capsys, monkeypatch) -> None:
    state = load_file(CHECKPOINT)
    moved_state = {key: value * 1.2 if key.startswith(NETWORK) else value for key, value in state.items()}
    save_file(moved_state, tmp_path / "other.safetensors")
    save_file({"x": torch.zeros(2)}, tmp_path / "none.safetensors")
    words = ["fingerprint", str(CHECKPOINT), "--out", str(tmp_path / "new")]
    assert main([*words, "--compare", str(tmp_path / "other.safetensors")]) == 0
    assert "other: 20.0% away" in capsys.readouterr().out
    made, shipped = (read_print(folder / file_name("demo")) for folder in (tmp_path / "new", DEMO_FOLDER))
    assert made.sizes == shipped.sizes
    assert all(np.array_equal(made.samples[name], shipped.samples[name]) for name in made.samples)
    assert main([*words, "--compare", str(tmp_path / "none.safetensors")]) == 3
    assert main(["fingerprint", str(tmp_path / "none.safetensors"), "--out", str(tmp_path)]) == 3
