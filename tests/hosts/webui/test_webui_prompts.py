"""Extra prompts are prompts, also beside the real sd-dynamic-prompts (`--webui-extension FOLDER` of it).

What the UNet saw is told by pictures: those of a job with templates are the ones of a job with what its infotexts say.
"""

from __future__ import annotations

import json
import re

import pytest
from cases import check_layers, check_refused, for_bases, for_methods, some_upscaler
from client import HIRES, TITLE, Result, arguments, layered, same
from texts import STYLE, STYLE_NAME

from lib_layerdiffuse.core.methods import METHODS, find_method
from lib_layerdiffuse.form.frames import FRAMES, PROMPT_SETTINGS
from lib_layerdiffuse.webui.jobs.frame_prompts import MARK, SEPARATOR

SHARING = tuple(method.id for method in METHODS if len(method.frames) > 1)
MAIN = "a {red|green|blue} __thing__"
TEXTS = {"foreground": "{one|two|three} cats", "background": "in the __weather__"}
TEXTS["blended"] = "(${x={day|night}}${x}:1.2)"
TEMPLATES = {FRAMES[frame].prompt: text for frame, text in TEXTS.items()}


@pytest.fixture
def expander(host) -> str:
    """The name by which the API knows sd-dynamic-prompts; skips without it."""
    names = host.client.get("/sdapi/v1/scripts")["txt2img"]
    name = next((name for name in names if name.startswith("dynamic prompts")), None)
    return name or pytest.skip("needs sd-dynamic-prompts: --webui-extension FOLDER")


def parameters(text: str) -> dict[str, str]:
    """The generation parameters of an infotext, its prompt among them."""
    pairs = re.findall(r'(\w[\w /-]*): ("(?:\\.|[^"])*"|[^,]*)', text.split("\n")[-1])
    found = {key: json.loads(value) if value.startswith('"') else value for key, value in pairs}
    return {"prompt": text.split("\n")[0], **found}


def job(method, expander: str, options: list, **choices) -> dict:
    """The API's fields of a job with a method, and with these first arguments of sd-dynamic-prompts."""
    scripts = {TITLE: {"args": arguments(method, **choices)}, expander: {"args": options}}
    return {"alwayson_scripts": scripts}


def check_told(host, result: Result, method, expander: str, **fields) -> list[dict[str, str]]:
    """The parameters of each result, which give its pictures again without the expanding script."""
    assert MARK not in str(result.info) and SEPARATOR not in str(result.info)
    frames, found = len(method.frames), [parameters(text) for text in result.infotexts]
    for first in range(0, len(result.images), frames):
        told = found[first]
        assert all(one["prompt"] == told["prompt"] for one in found[first : first + frames])
        extras = {name: told[f"layerdiffusion_{name}"] for name in TEMPLATES if f"layerdiffusion_{name}" in told}
        texts = [told["prompt"], *extras.values()]
        assert not re.search(r"[{}$]|__", "".join(texts)), texts
        choices = {"prompt": told["prompt"], "seed": int(told["Seed"]), "batch_size": frames} | fields
        again = host.txt2img(**choices, **job(method, expander, [False], **extras))
        assert all(map(same, again.images, result.images[first : first + frames])), texts
    return found[::frames]


@for_methods(*SHARING)
def test_dynamic_prompts_561_beside_the_real_extension(host, method, expander):
    fields = {"prompt": MAIN, "batch_size": len(method.frames), "n_iter": 3}
    result = host.txt2img(**fields, **layered(method, **TEMPLATES))
    check_layers(result, method, groups=3)
    told = check_told(host, result, method, expander)
    assert len({str([one["prompt"], *map(one.get, map("layerdiffusion_{}".format, TEMPLATES))]) for one in told}) > 1
    assert told[0]["Template"] == MAIN
    for frame in method.frames:
        assert told[0][f"layerdiffusion_{FRAMES[frame].prompt}_template"] == TEXTS[frame]


@for_methods("sd15_joint")
@pytest.mark.parametrize("most", [0, 6])
def test_every_combination_is_a_whole_result(host, method, expander, most):
    """`most` as many as there would be pictures without combinations."""
    options = [True, True, 1, False, False, False, 1.1, 1.5, 100, 0.7, False, False, True, False, False, most]
    extras = {"fg_additional_prompt": "{one|two} cats", "bg_additional_prompt": "in {rain|snow|sun}"}
    result = host.txt2img(prompt="a {red|blue} car", batch_size=3, n_iter=2, **job(method, expander, options, **extras))
    count = most or 12
    check_layers(result, method, groups=count)
    told = check_told(host, result, method, expander)
    keys = ("prompt", "layerdiffusion_fg_additional_prompt", "layerdiffusion_bg_additional_prompt")
    assert len({tuple(one[key] for key in keys) for one in told}) == count


@for_methods("sd15_joint")
def test_the_second_pass_beside_the_real_extension(host, method, expander):
    fields = HIRES | {"hr_scale": 2, "hr_upscaler": some_upscaler(host.client), "hr_second_pass_steps": 2}
    result = host.txt2img(prompt=MAIN, batch_size=3, **fields, **layered(method, **TEMPLATES))
    assert "Hires prompt" not in result.infotexts[0]
    check_told(host, result, method, expander, **fields)


@for_methods("sd15_fg", "xl_fg_conv")
def test_one_picture_beside_the_real_extension(host, method, expander):
    result = host.txt2img(prompt=MAIN, n_iter=3, **layered(method, **TEMPLATES))
    check_layers(result, method, groups=3)
    told = check_told(host, result, method, expander)
    assert len({one["prompt"] for one in told}) > 1
    assert "not used" in result.info["extra_generation_params"]["layerdiffusion_note"]


@for_bases("sd15")
@pytest.mark.parametrize("name", PROMPT_SETTINGS)
def test_a_lora_in_an_extra_prompt_is_loaded_for_the_whole_batch(host, name):
    method = find_method("sd15_joint")
    without = host.txt2img(batch_size=3, **layered(method))
    in_main = host.txt2img(batch_size=3, prompt=f"a red apple {host.lora}", **layered(method))
    in_extra = host.txt2img(batch_size=3, **layered(method, **{name: host.lora}))
    assert all(map(same, in_extra.images, in_main.images)) and not any(map(same, in_extra.images, without.images))
    assert "works on all pictures" in in_extra.info["extra_generation_params"]["layerdiffusion_note"]
    assert host.lora in in_extra.infotexts[0] and "layerdiffusion_note" not in in_extra.infotexts[0]
    assert in_extra.infotexts[0].startswith("a red apple\n")


@for_bases("sd15")
def test_attention_editing_and_and_in_an_extra_prompt(host):
    """As if they were typed into the prompt of that frame alone."""
    method = find_method("sd15_joint")
    jobs = [
        host.txt2img(batch_size=3, steps=4, **layered(method, fg_additional_prompt=text))
        for text in ("cats", "(cats:1.4)", "[cats:dogs:0.5]", "cats AND dogs", "")
    ]
    for result in jobs:
        check_layers(result, method)
    assert not any(same(one.images[0], other.images[0]) for n, one in enumerate(jobs) for other in jobs[:n])


@for_bases("sd15")
def test_a_style_holds_for_the_joined_prompt(host):
    method, extras = find_method("sd15_joint"), dict.fromkeys(TEMPLATES, "two")
    before, behind = STYLE.split("{prompt}")
    styled = host.txt2img(batch_size=3, styles=[STYLE_NAME], **layered(method, **extras))
    typed = host.txt2img(batch_size=3, prompt=f"{before}two, a red apple{behind}", **layered(method))
    assert all(map(same, styled.images, typed.images))
    assert styled.infotexts[0].startswith(f"{before}a red apple{behind}\n")


@for_bases("sd15")
def test_a_refusal_is_told_once_and_nothing_else(host):
    """The batch would have been rounded up."""
    refused = host.txt2img(n_iter=2, **layered(find_method("xl_bg2blend").label), prompt="an apple")
    check_refused(refused, "bg")
    refused = host.txt2img(**layered("sd15_fg2bg"))
    check_refused(refused, "fg_image")
    assert str(refused.info).count("What to do") == 1 and "rounded" not in str(refused.info)
    assert refused.infotexts and "layerdiffusion_error" not in refused.infotexts[0]
