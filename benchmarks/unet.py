"""The UNet that benchmarks step: SD1.5's shape, made-up weights."""

from __future__ import annotations

import argparse

import torch
from diffusers import UNet2DConditionModel


def add_options(parser: argparse.ArgumentParser) -> None:
    """What every benchmark of a step lets one choose."""
    parser.add_argument("--latent", type=int, default=32, help="side of the latent (32)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps (cpu)")
    parser.add_argument("--dtype", default="float32", help="of the UNet (float32)")


def unet_and_inputs(chosen: argparse.Namespace, rows: int) -> tuple[UNet2DConditionModel, tuple[torch.Tensor, ...]]:
    """The UNet, and what a step of a batch of so many rows takes."""
    device, dtype = torch.device(chosen.device), getattr(torch, chosen.dtype)
    torch.manual_seed(0)
    unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8).to(device, dtype).eval()
    return unet, (
        torch.randn(rows, 4, chosen.latent, chosen.latent, device=device, dtype=dtype),
        torch.tensor(500, device=device),
        torch.randn(rows, 77, 768, device=device, dtype=dtype),
    )


def wait(chosen: argparse.Namespace) -> None:
    """Until the device has done what it was given."""
    if torch.device(chosen.device).type == "cuda":
        torch.cuda.synchronize()
