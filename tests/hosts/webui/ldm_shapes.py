"""Run by a WebUI's own Python: a small model's configuration, and the keys and shapes of its checkpoint.

`ldm_shapes.py WEBUI KIND TOKENIZER TARGET` writes TARGET.yaml (beside a checkpoint, AUTOMATIC1111 builds the model
from it) and TARGET.json (key to shape). KIND is sd15 or sdxl; TOKENIZER is a folder of CLIP tokenizer files with the
config.json of a text model.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import yaml

CHANNELS, VAE_CHANNELS = 64, 32
SECOND_TEXT_MODEL = "ViT-S-32-alt"  # the smallest that open_clip knows: width 256, ten layers
SIZE_EMBEDDINGS = 6 * 256  # what SDXL knows of the picture's size, crop and target


def small_sd15(config, tokenizer, width):
    """SD1.5's configuration with its block structure, fewer channels and a small text model of this width."""
    parameters = config["model"]["params"]
    parameters["unet_config"]["params"].update(model_channels=CHANNELS, context_dim=width, use_checkpoint=False)
    parameters["first_stage_config"]["params"]["ddconfig"]["ch"] = VAE_CHANNELS
    parameters["cond_stage_config"]["params"] = {"version": str(tokenizer)}
    return config


def small_sdxl(config, tokenizer, width):
    """SDXL's configuration with fewer channels, fewer transformer blocks and two small text models."""
    import open_clip

    second = open_clip.get_model_config(SECOND_TEXT_MODEL)
    parameters = config["model"]["params"]
    parameters["network_config"]["params"].update(
        model_channels=CHANNELS,
        num_head_channels=32,
        transformer_depth=[1, 1, 2],
        context_dim=width + second["text_cfg"]["width"],
        adm_in_channels=second["embed_dim"] + SIZE_EMBEDDINGS,
        use_checkpoint=False,
    )
    parameters["first_stage_config"]["params"]["ddconfig"]["ch"] = VAE_CHANNELS
    first_text, second_text = parameters["conditioner_config"]["params"]["emb_models"][:2]
    first_text["params"].update(version=str(tokenizer), layer_idx=1)
    second_text["params"]["arch"] = SECOND_TEXT_MODEL
    return config


def sd15_parts(parameters, text):
    """Key prefix and module of every part of an SD1.5 checkpoint."""
    from ldm.modules.diffusionmodules.openaimodel import UNetModel

    yield "model.diffusion_model.", UNetModel(**parameters["unet_config"]["params"])
    yield "cond_stage_model.transformer.", text
    yield from vae_parts(parameters["first_stage_config"]["params"]["ddconfig"])


def sdxl_parts(parameters, text):
    """Key prefix and module of every part of an SDXL checkpoint."""
    import open_clip
    from sgm.modules.diffusionmodules.openaimodel import UNetModel

    unet = dict(parameters["network_config"]["params"], spatial_transformer_attn_type="softmax")
    second = open_clip.model.CLIP(**open_clip.get_model_config(SECOND_TEXT_MODEL))
    del second.visual
    yield "model.diffusion_model.", UNetModel(**unet)
    yield "conditioner.embedders.0.transformer.", text
    yield "conditioner.embedders.1.model.", second
    yield from vae_parts(parameters["first_stage_config"]["params"]["ddconfig"])


def vae_parts(options):
    """Key prefix and module of every part of the autoencoder."""
    from ldm.modules.diffusionmodules.model import Decoder, Encoder

    options = dict(options, attn_type="vanilla")
    yield "first_stage_model.encoder.", Encoder(**options)
    yield "first_stage_model.decoder.", Decoder(**options)
    yield "first_stage_model.quant_conv.", torch.nn.Conv2d(8, 8, 1)
    yield "first_stage_model.post_quant_conv.", torch.nn.Conv2d(4, 4, 1)


KINDS = {
    "sd15": ("configs/v1-inference.yaml", small_sd15, sd15_parts),
    "sdxl": ("repositories/generative-models/configs/inference/sd_xl_base.yaml", small_sdxl, sdxl_parts),
}


def main(webui, kind, tokenizer, target):
    """Write the configuration and the shapes of one kind."""
    for name in ("stable-diffusion-stability-ai", "generative-models"):
        sys.path.insert(0, str(webui / "repositories" / name))
    from transformers import CLIPTextConfig, CLIPTextModel

    original, shrink, parts = KINDS[kind]
    text_config = CLIPTextConfig.from_pretrained(str(tokenizer))
    config = shrink(yaml.safe_load((webui / original).read_text()), tokenizer, text_config.hidden_size)
    target.with_suffix(".yaml").write_text(yaml.safe_dump(config))
    with torch.device("meta"):
        shapes = {
            prefix + key: list(value.shape)
            for prefix, module in parts(config["model"]["params"], CLIPTextModel(text_config))
            for key, value in module.state_dict().items()
            if not key.endswith(("position_ids", "attn_mask"))
        }
    target.with_suffix(".json").write_text(json.dumps(shapes))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
