"""Denoising loss, averaged weights and low-rank layers."""

from __future__ import annotations

import pytest
import tiny
import torch

from lib_layerdiffuse.core.offsets.install import merge_offsets
from lib_layerdiffuse.core.offsets.offsets import make_lora, parse_offsets
from lib_layerdiffuse.training.diffusion.denoising import AttentionLowRank, DenoisingLoss, WeightAverage
from lib_layerdiffuse.unet.ldm_keys import unet_modules, unet_table

ALPHAS = torch.linspace(0.99, 0.01, 10)
LATENT = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
NOISE = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(1))
STEPS = torch.tensor([0, 3, 6, 9])


def knowing_unet(kind: str):
    """What a UNet that knows the clean latent would answer, solved from the noisy latent it is given."""

    def answer(noisy, steps):
        alpha = ALPHAS[steps][:, None, None, None]
        noise = (noisy - alpha.sqrt() * LATENT) / (1 - alpha).sqrt()
        velocity = (alpha.sqrt() * noisy - LATENT) / (1 - alpha).sqrt()
        return {"epsilon": noise, "v_prediction": velocity, "sample": LATENT}[kind]

    return answer


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("gamma", [0.0, 5.0])
def test_the_right_answer_has_no_loss(kind, gamma):
    loss = DenoisingLoss(ALPHAS, kind, gamma)
    assert loss(knowing_unet(kind), LATENT, NOISE, STEPS) < 1e-9
    assert loss(lambda noisy, steps: torch.zeros_like(noisy), LATENT, NOISE, STEPS) > 0.05


def test_min_snr_weighs_all_prediction_types_alike():
    """The same wrong estimate of the latent costs the same, however it is expressed."""
    wrong = LATENT + 0.1

    def answers(kind):
        def answer(noisy, steps):
            alpha = ALPHAS[steps][:, None, None, None]
            noise = (noisy - alpha.sqrt() * wrong) / (1 - alpha).sqrt()
            return {
                "epsilon": noise,
                "v_prediction": alpha.sqrt() * noise - (1 - alpha).sqrt() * wrong,
                "sample": wrong,
            }[kind]

        return answer

    losses = [DenoisingLoss(ALPHAS, kind, 5.0)(answers(kind), LATENT, NOISE, STEPS) for kind in ("epsilon", "sample")]
    losses.append(DenoisingLoss(ALPHAS, "v_prediction", 5.0)(answers("v_prediction"), LATENT, NOISE, STEPS))
    assert torch.allclose(torch.stack(losses), losses[0], rtol=1e-3)
    snr = ALPHAS[STEPS] / (1 - ALPHAS[STEPS])
    assert losses[0].item() == pytest.approx((0.01 * snr.clamp(max=5)).mean().item(), rel=1e-3)


def test_the_average_follows_and_steps_aside():
    layer = torch.nn.Linear(2, 2)
    average = WeightAverage(layer, 0.5)
    start = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight += 1
    trained = layer.weight.detach().clone()
    average.average.optimization_step = 9  # past the first, which keeps nothing of what was
    average.update()
    with average.applied():
        assert ((start < layer.weight) & (layer.weight < trained)).all()
    assert torch.equal(layer.weight, trained)
    with pytest.raises(KeyboardInterrupt), average.applied():
        raise KeyboardInterrupt
    assert torch.equal(layer.weight, trained)


def test_the_average_is_in_the_checkpoint(tmp_path):
    layer = torch.nn.Linear(2, 2)
    average = WeightAverage(layer)
    with torch.no_grad():
        layer.weight += 1
    average.update()
    torch.save(average.state_dict(), tmp_path / "state.pt")
    copied = torch.nn.Linear(2, 2)
    other = WeightAverage(copied, 0.5)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert other.average.optimization_step == 1 and other.average.decay == 0.5
    with other.applied(), average.applied():
        assert torch.equal(copied.weight, layer.weight)


def test_low_rank_layers_are_the_offsets_that_hosts_merge():
    torch.manual_seed(0)
    unet = tiny.lively(tiny.demo_unet()).requires_grad_(False)
    inputs = LATENT, torch.tensor([5, 5, 5, 5]), torch.randn(4, 7, tiny.CONTEXT)
    plain = unet(*inputs).sample
    tuned = AttentionLowRank(unet, rank=4)
    assert torch.equal(unet(*inputs).sample, plain)
    for layer in tuned.layers:
        torch.nn.init.normal_(layer.up, std=0.2)
    expected = unet(*inputs).sample
    tuned.remove()
    assert torch.equal(unet(*inputs).sample, plain)
    assert (expected - plain).abs().max() > 1e-3

    table = unet_table(unet.config)
    offsets = make_lora({table.to_ldm(name) + ".weight": pair for name, pair in tuned.pairs().items()}, torch.float32)
    assert len(offsets) == 2 * 4 * len(unet.attn_processors)
    assert "diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_out.0.weight::lora::0" in offsets
    with merge_offsets(parse_offsets(offsets), unet_modules(unet)):
        assert (unet(*inputs).sample - expected).abs().max() < 1e-4
