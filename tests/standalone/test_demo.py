"""The demo model: exported as an LDM checkpoint, loaded back as the same pipeline; hints for its words."""

from __future__ import annotations

import difflib
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from tiny import (
    CONCEPTS,
    demo_unet,
    lively,
    load_tokenizer,
    text_model,
    vae_model,
    write_demo_folder,
    write_tokenizer,
    write_vocabulary,
)

from lib_layerdiffuse.core.errors import InputError, WeightsError
from lib_layerdiffuse.standalone.demo import load_demo
from lib_layerdiffuse.standalone.vocabulary import (
    WORDS_SEEN,
    Scene,
    read_scenes,
    read_things,
    read_vocabulary,
    unknown_word_hints,
)
from lib_layerdiffuse.training.diffusion.convert import export_demo, ldm_unet_params


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Parts before the export, rounded as a file rounds them, and the folder."""
    folder = tmp_path_factory.mktemp("demo")
    torch.manual_seed(3)
    size = write_tokenizer(folder / "source")
    parts = lively(vae_model()), lively(text_model(size)), lively(demo_unet())
    for part in parts:
        part.half().float()
    export_demo(parts[0], parts[1], folder / "source", parts[2], folder / "out")
    return parts, folder


def test_every_tensor_comes_back(exported):
    (vae, text_encoder, unet), folder = exported
    pipeline = load_demo(folder / "out")
    for mine, theirs in ((vae, pipeline.vae), (text_encoder, pipeline.text_encoder), (unet, pipeline.unet)):
        state, loaded = mine.state_dict(), theirs.state_dict()
        assert state.keys() == loaded.keys()
        assert all(torch.equal(state[name], loaded[name]) for name in state)
        assert all(value.dtype == torch.float32 for value in loaded.values())


def test_the_loaded_pipeline_paints_the_same_picture(exported):
    (vae, text_encoder, unet), folder = exported
    loaded = load_demo(folder / "out")
    built = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder.eval(),
        tokenizer=load_tokenizer(folder / "source"),
        unet=unet,
        scheduler=loaded.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pictures = []
    for pipeline in (built, loaded):
        pipeline.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(1)
        pictures.append(pipeline("a red apple", num_inference_steps=2, generator=generator, output_type="pt").images)
    assert torch.equal(*pictures)
    assert pictures[0].std() > 0.01


def test_checkpoint_and_yaml_are_what_a_webui_expects(exported):
    _, folder = exported
    state = load_file(str(folder / "out" / "demo.safetensors"))
    assert {key.split(".")[0] for key in state} == {"model", "first_stage_model", "cond_stage_model"}
    assert "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight" in state
    assert {tensor.dtype for tensor in state.values()} == {torch.float16, torch.int64}
    params = yaml.safe_load((folder / "out" / "demo.yaml").read_text())["model"]["params"]
    assert params["parameterization"] == "v" and params["scale_factor"] == 1.0
    unet = params["unet_config"]["params"]
    assert unet["attention_resolutions"] == [2, 4] and unet["channel_mult"] == [1, 2, 2]
    assert unet["num_head_channels"] == 32
    text = params["cond_stage_config"]["params"]["version"]
    assert text.startswith("${oc.env:LAYERDIFFUSE_DEMO_TOKENIZER,") and text.endswith("/tokenizer}")


def test_the_text_models_config_names_no_path(exported):
    (_, text_encoder, _), folder = exported
    assert "_name_or_path" in text_encoder.config.to_dict()
    config = json.loads((folder / "out" / "tokenizer" / "config.json").read_text())
    assert "_name_or_path" not in config
    assert config["hidden_size"] == text_encoder.config.hidden_size


def test_scheduler_follows_the_yaml(exported):
    scheduler = load_demo(exported[1] / "out").scheduler
    assert scheduler.config.prediction_type == "v_prediction"
    scheduler.set_timesteps(20)
    assert scheduler.timesteps[0] == 999


def test_a_unet_that_ldm_cannot_express_is_refused():
    config = {**demo_unet().config, "attention_head_dim": (1, 2, 4)}
    with pytest.raises(InputError, match="one head width"):
        ldm_unet_params(config)


@pytest.mark.parametrize(("widths", "ours"), [((96, 128, 128), True), ((64, 128, 128), False)])
def test_widths_that_are_no_multiples_of_the_first_are_read_again(exported, tmp_path, widths, ours):
    (vae, text_encoder, _), folder = exported
    config = {
        **demo_unet().config,
        "block_out_channels": widths,
        "attention_head_dim": [width // 32 for width in widths],
    }
    unet = UNet2DConditionModel.from_config(config)
    export_demo(vae, text_encoder, folder / "source", unet, tmp_path)
    params = yaml.safe_load((tmp_path / "demo.yaml").read_text())["model"]["params"]["unet_config"]
    assert params["target"].startswith("lib_layerdiffuse.webui.unet_widths" if ours else "ldm.modules")
    read = load_demo(tmp_path).unet
    assert tuple(read.config.block_out_channels) == widths
    assert all(torch.allclose(tensor, unet.state_dict()[name], atol=2e-3) for name, tensor in read.state_dict().items())


@pytest.mark.parametrize("damage", ["truncated", "foreign", "missing", "no yaml", "no tokenizer", "no text config"])
def test_broken_demo_folders_are_named(tmp_path, damage):
    folder = write_demo_folder(tmp_path)
    checkpoint = folder / "demo.safetensors"
    if damage == "truncated":
        checkpoint.write_bytes(checkpoint.read_bytes()[:-1000])
    elif damage == "foreign":
        save_file({"model.diffusion_model.out.0.weight": torch.zeros(3)}, str(checkpoint))
    elif damage == "missing":
        checkpoint.unlink()
    elif damage == "no tokenizer":
        shutil.rmtree(folder / "tokenizer")
    elif damage == "no text config":
        (folder / "tokenizer" / "config.json").write_text("[]")
    else:
        (folder / "demo.yaml").write_text("nothing: here")
    with pytest.raises(WeightsError, match="demo"):
        load_demo(folder)


def test_no_demo_folder(tmp_path):
    with pytest.raises(WeightsError, match="nowhere"):
        load_demo(tmp_path / "nowhere")


def test_vocabulary_lists_concepts_and_their_other_names(tmp_path):
    words = read_vocabulary(write_vocabulary(tmp_path))
    assert set(CONCEPTS) < set(words["concepts"]) and "bubbles" in words["concepts"]
    (tmp_path / "vocabulary.json").write_text('{"food": ["red apple"], "things": ["bell"]}')
    assert read_vocabulary(tmp_path) == {"food": ["red apple"], "things": ["bell"]} and read_scenes(tmp_path) == []


def test_vocabulary_lists_scenes_beside_things(tmp_path):
    folder = write_vocabulary(tmp_path)
    assert read_scenes(folder)[0] == Scene("beach", ("a beach",), ("on a beach",))
    assert read_vocabulary(folder)["scenes"] == ["a beach", "on a beach", "a meadow", "on a meadow"]
    assert list(read_things(folder)) == ["concepts"]
    (tmp_path / "vocabulary.json").write_text('{"concepts": ["bell"], "scenes": ["the sea"]}')
    assert read_vocabulary(tmp_path) == {"concepts": ["bell"], "scenes": ["the sea"]}


def test_colours_and_styles_are_known_words(tmp_path):
    folder = write_vocabulary(tmp_path)
    row = '{"concept": "automobile", "also": ["car"], "noun": "car", "colours": ["red", "blue"]}'
    (folder / "vocabulary.json").write_text(f'{{"concepts": [{row}], "styles": ["flat drawing of"]}}')
    words = read_vocabulary(folder)
    assert words == {"concepts": ["automobile", "car", "red car", "blue car"], "styles": ["flat drawing of"]}
    known = [word for group in words.values() for word in group]
    assert unknown_word_hints(["a flat drawing of a blue car"], known) == []
    assert "green" in unknown_word_hints(["a green car"], known)[0]


@pytest.mark.parametrize(
    "scenes",
    ['"sea"', "[3]", '[{"captions": []}]', '[{"scene": "sea", "phrases": 1}]', '{"sea": 1}', '[{"captions": 3}]'],
)
def test_scenes_in_a_wrong_form_are_named(tmp_path, scenes):
    folder = write_vocabulary(tmp_path)
    (folder / "vocabulary.json").write_text(f'{{"concepts": ["bell"], "scenes": {scenes}}}')
    with pytest.raises(WeightsError, match=r"vocabulary.json"):
        read_scenes(folder)


def test_hints_know_scenes(tmp_path):
    captions = [name for names in read_vocabulary(write_vocabulary(tmp_path)).values() for name in names]
    assert unknown_word_hints(["a red apple on a beach", "a meadow"], captions) == []
    (hint,) = unknown_word_hints(["a red apple on a meadov"], captions)
    assert "'meadov'; near it: meadow" in hint


WORDS = [*CONCEPTS, "blue heart", "car", "ghost", "turtle", "house"]


@pytest.mark.parametrize(
    ("prompt", "wanted", "unwanted"),
    [
        ("purple ghost", ["'purple'", "of this prompt it knows ghost"], ["apple", "turtle", "near it"]),
        ("blue car", ["'blue' of this, only of blue heart"], ["near it"]),
        ("blue heart", [], []),
        ("кошка", ["'кошка'", "English"], ["near it"]),
        ("りんご", ["りんご", "English"], []),
        ("लाल सेब", ["'लाल', 'सेब'", "English"], []),
        ("🍎", ["🍎", "English"], []),
        ("a horse", ["'horse'"], ["house"]),
        ("a cat in the style of monet, masterpiece, trending, best", ["'cat', 'style', 'monet'", "and others"], []),
        ("bubbles", [], []),
    ],
)
def test_hints_help(prompt, wanted, unwanted):
    text = "\n".join(unknown_word_hints([prompt], WORDS))
    assert all(part in text for part in wanted) and bool(text) == bool(wanted)
    assert not any(part in text for part in unwanted)
    assert all(line.startswith("the demo model does not know the word") for line in text.splitlines())


def test_a_long_prompt_has_few_hints_and_costs_little(monkeypatch):
    compared, original = [], difflib.get_close_matches

    def counted(word, *others, **named):
        compared.append(word)
        return original(word, *others, **named)

    monkeypatch.setattr(difflib, "get_close_matches", counted)
    hints = unknown_word_hints([" ".join(f"word{number} appl{number}" for number in range(5000))] * 20, WORDS)
    assert len(hints) <= 5 and max(map(len, hints)) < 250
    assert 0 < len(compared) <= 20 * WORDS_SEEN, "of 200,000 words; comparing is what takes time"


def test_the_same_number_of_words_stands_everywhere():
    things = [names for group in read_things().values() for names in group]
    assert len(things) == 221
    root = Path(__file__).parents[2]
    for place in ("README.md", "docs/demo-model.md", "lib_layerdiffuse/demo_model/README.md"):
        assert f"{len(things)} " in (root / place).read_text(encoding="utf-8")


def test_hints_name_near_words_only_for_unknown_ones():
    assert unknown_word_hints(["A red Apple, with bubbles"], CONCEPTS) == []
    (hint,) = unknown_word_hints(["a red aple", "aple"], CONCEPTS)
    assert "'aple'" in hint and "apple" in hint and "words" in hint
    (plural,) = unknown_word_hints(["apples"], CONCEPTS)
    assert "near it: apple" in plural
    assert "near it" not in unknown_word_hints(["xylophone"], ["banana"])[0]
