"""What Forge has built in, beside us: theirs has its effect, alpha is there, a plain picture afterwards is what it was.

Fooocus inpaint and ControlLLLite are not here: they need weights of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from cases import difference
from client import Result, as_base64, is_transparent, layered, picture
from PIL import Image

from lib_layerdiffuse.core.methods import find_method

WIDE = {"width": 128, "height": 64}
# the middle block has more than one token: of one FreeU makes NaN (0 / 0), and Forge's tiled VAE overlaps by 128 pixels
LARGE = {"width": 128, "height": 128}
FREEU, GUIDANCE = "FreeU Integrated (SD 1.x, SD 2.x, SDXL)", "PerturbedAttentionGuidance Integrated"
SELF_GUIDANCE = "SelfAttentionGuidance Integrated (SD 1.x, SD 2.x, SDXL)"
THRESHOLDING, MODIFIER = "DynamicThresholding (CFG-Fix) Integrated", "LatentModifier Integrated"
HRFIX, TILES, STYLE = "Kohya HRFix Integrated", "MultiDiffusion Integrated", "StyleAlign Integrated"


@dataclass(frozen=True)
class Case:
    """A built-in script with arguments that matter, beside a method."""

    title: str
    values: list[Any]
    method: str = "sd15_fg"
    fields: dict[str, Any] = field(default_factory=dict)
    changes: bool = True

    @property
    def name(self) -> str:
        """For the list of tests."""
        return f"{self.title.split()[0].lower()}-{self.method}-{self.values[-1]}"


def hrfix(factor: float) -> list[Any]:
    """From the first step to the last."""
    return [True, 3, factor, 0.0, 1.0, True, "bicubic", "bicubic"]


def tiles(method: str) -> list[Any]:
    """Tiles of 64x64 pixels that overlap."""
    return [True, method, 64, 64, 32, 4]


CASES = [
    Case(FREEU, [True, 1.3, 1.4, 0.9, 0.2, 0.0, 1.0], fields=LARGE),
    Case(THRESHOLDING, [True, 1.0, 0.9]),
    Case(MODIFIER, [True, 0.0, "gaussian", 0.1, "reinhard", 100.0]),
    Case("Never OOM Integrated", [True, True], fields=LARGE, changes=False),
    Case(STYLE, [True, 1.0], fields={"batch_size": 2}),
    Case(STYLE, [True, 1.0], "sd15_joint"),
    Case(GUIDANCE, [True, 3.0], fields=LARGE),
    Case(SELF_GUIDANCE, [True, 2.0, 2.0, 0.5], fields=LARGE),
    Case(HRFIX, hrfix(2.0), "sd15_fg", LARGE),
    Case(HRFIX, hrfix(2.0), "sd15_bg2fg", LARGE),
    Case(HRFIX, [*hrfix(1.5)[:-1], "bilinear"], "sd15_bg2fg", LARGE),
    Case(TILES, tiles("MultiDiffusion"), "sd15_fg", WIDE),
    Case(TILES, tiles("MultiDiffusion"), "sd15_joint", WIDE),
    Case(TILES, tiles("Mixture of Diffusers"), "sd15_bg2fg", WIDE),
]
for_cases = pytest.mark.parametrize(("base", "case"), [pytest.param("sd15", case, id=case.name) for case in CASES])
ALONE: dict[str, Result] = {}


def job(host, case: Case, *theirs: dict[str, Any]) -> Result:
    """The method alone, or beside a built-in script."""
    method = find_method(case.method)
    fields = {"batch_size": len(method.frames)} | case.fields
    scripts = layered(method)["alwayson_scripts"]
    for one in theirs:
        scripts |= one
    return host.txt2img(**fields, alwayson_scripts=scripts)


def alone(host, case: Case) -> Result:
    """The method without theirs; made once."""
    key = f"{case.method} {case.fields}"
    if key not in ALONE:
        ALONE[key] = job(host, case)
    return ALONE[key]


def check_has(host, title: str, tab: str = "txt2img") -> None:
    """Skip what needs a script that this WebUI does not have."""
    if title.lower() not in host.client.get("/sdapi/v1/scripts")[tab]:
        pytest.skip(f"this WebUI has no {title}")


@for_cases
def test_a_built_in_script_has_its_effect_beside_us(host, case):
    check_has(host, case.title)
    method, without = find_method(case.method), alone(host, case)
    both = job(host, case, {case.title: {"args": case.values}})
    assert both.error == "" and "layerdiffusion_note" not in both.info["extra_generation_params"]
    assert both.modes == without.modes
    pairs = [pair for pair in zip(both.images, without.images, strict=True) if pair[0].mode in ("RGB", "RGBA")]
    assert any(difference(*pair) > 0.2 for pair in pairs) == case.changes
    if method.transparent_frames:
        assert any(map(is_transparent, both.images))


@pytest.mark.parametrize("base", ["sd15"])
def test_soft_inpainting_beside_us(host, base):
    title = "Soft Inpainting"
    check_has(host, title, "img2img")
    start, mask = picture(), Image.linear_gradient("L").resize((64, 64))
    fields = {"mask": as_base64(mask), "inpainting_fill": 1, "inpaint_full_res": False, "mask_blur": 0}
    scripts = layered("sd15_fg")["alwayson_scripts"]
    soft = {title: {"args": [True, 1, 0.5, 4, 0, 0.5, 2]}}
    results = [host.img2img(start, **fields, alwayson_scripts=scripts | more) for more in ({}, soft)]
    assert [result.error for result in results] == ["", ""]
    assert all(is_transparent(result.images[0]) for result in results)
    assert difference(results[0].images[0], results[1].images[0]) > 0.2
