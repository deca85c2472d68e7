"""A method put on a WebUI's UNet for one pass, apart from any job."""

from __future__ import annotations

import pytest
import torch
from fakes.running import Snapshot, networks_of, raising

from lib_layerdiffuse.core.errors import InputError
from lib_layerdiffuse.core.methods import find_method
from lib_layerdiffuse.unet.method_kinds import Conditions, read_method
from lib_layerdiffuse.webui.host import unet_pass
from lib_layerdiffuse.webui.host.host import host_of
from lib_layerdiffuse.webui.host.row_map import step_rows
from lib_layerdiffuse.webui.host.unet_pass import MethodRun, UnetPass, reordered, timestep_of


def make(webui, layers, name: str, stop_at: float = 1.0) -> UnetPass:
    """A pass with a method."""
    host, method = host_of(webui.sd_model), find_method(name)
    weights = read_method(layers / f"{method.weights}.safetensors", dict(host.unet.named_modules()), method)
    return UnetPass(host, MethodRun(method, weights, 1.0, stop_at), Conditions())


@torch.no_grad()
def call(webui, rows: int = 3, timestep: float = 500.0, seed: int = 0) -> torch.Tensor:
    """A call of the UNet."""
    generator = torch.Generator().manual_seed(seed)
    unet, model = networks_of(webui)["unet"], webui.sd_model
    sample = torch.randn(rows, 4, 8, 8, generator=generator)
    cond = model.embed("a red apple")
    times = torch.full((rows,), timestep)
    if isinstance(cond, dict):
        context, vector = (cond[key].expand(rows, *cond[key].shape) for key in ("crossattn", "vector"))
        return unet(sample, timesteps=times, context=context, y=vector)
    return unet(sample, times, context=cond.expand(rows, *cond.shape))


@pytest.mark.parametrize(("base", "name"), [("sd15", "sd15_joint"), ("sdxl", "xl_fg_conv"), ("sdxl", "xl_fg_attn")])
def test_on_inside_and_off_outside(make_webui, flavour, layers, base, name) -> None:
    webui = make_webui(flavour, base)
    plain, state = call(webui), Snapshot.of(webui)
    with make(webui, layers, name) as at_work:
        inside = call(webui)
        at_work.remove()
        at_work.remove()
        assert torch.equal(call(webui), plain)
    state.check(webui)
    assert at_work.calls == 1 and not torch.allclose(inside, plain, atol=1e-2)


def test_off_after_an_exception(sd15, layers) -> None:
    state = Snapshot.of(sd15)
    with raising(sd15, RuntimeError("boom")), pytest.raises(RuntimeError), make(sd15, layers, "sd15_joint"):
        call(sd15)
    state.check(sd15)


@pytest.mark.parametrize("name", ["sd15_joint", "xl_fg_conv"])
def test_stop_at_follows_the_timestep_of_each_call(make_webui, layers, name) -> None:
    webui = make_webui("a1111", find_method(name).base)
    plain = {time: call(webui, timestep=time) for time in (600.0, 400.0)}
    with make(webui, layers, name, stop_at=0.5):
        inside = {time: call(webui, timestep=time) for time in (600.0, 400.0, 600.0)}
    assert torch.equal(inside[400.0], plain[400.0]) and not torch.equal(inside[600.0], plain[600.0])


def test_rows_in_another_order_come_back_in_their_own(sd15, layers) -> None:
    """Six rows of two prompts: by pairs of a picture, or by prompt, each row gets the same."""
    rows = step_rows([2, 2, 2], with_uncond=False)
    by_part = sorted(range(6), key=lambda place: (rows[place].part, rows[place].image))
    unet = networks_of(sd15)["unet"]
    generator = torch.Generator().manual_seed(4)
    sample = torch.randn(6, 4, 8, 8, generator=generator)
    context = torch.randn(6, 7, 64, generator=generator)
    times = torch.full((6,), 500.0)
    with torch.no_grad(), make(sd15, layers, "sd15_joint") as at_work:
        wanted = unet(sample[by_part], times, context=context[by_part])
        at_work.rows.begin_step(rows)
        found = unet(sample, times, context=context)
    assert torch.allclose(found[by_part], wanted, atol=1e-4)
    assert not torch.allclose(found, wanted, atol=1e-2)


def test_a_batch_that_frames_do_not_divide_is_refused(sd15, layers) -> None:
    state = Snapshot.of(sd15)
    with pytest.raises(InputError, match="4 rows"), make(sd15, layers, "sd15_joint"):
        call(sd15, rows=4)
    state.check(sd15)


def test_loading_into_the_same_modules_meets_the_plain_ones(make_webui, layers) -> None:
    webui = make_webui("a1111", "sdxl")
    model = webui.sd_model
    with make(webui, layers, "xl_fg_conv") as at_work:
        patched = call(webui)
        model.load_state_dict(webui.engine.checkpoints["sdxl-two"].state, strict=False)
        other = call(webui)
        at_work.follow(host_of(model))
        both = call(webui)
    plain = call(webui)
    assert torch.equal(other, plain)
    assert not torch.equal(both, plain) and not torch.equal(both, patched)


def test_too_little_memory_for_the_weights(sd15, layers, monkeypatch) -> None:
    state, at_work = Snapshot.of(sd15), make(sd15, layers, "sd15_joint")

    def put(*_arguments):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB\nmore")

    monkeypatch.setattr(unet_pass, "put_method", put)
    with pytest.raises(InputError, match="too little memory"), at_work:
        call(sd15)
    state.check(sd15)


def test_timesteps_by_place_and_by_name() -> None:
    times = torch.tensor([501.0, 501.0])
    for inputs, named in (
        ((0, times), {}),
        ((0,), {"timesteps": times}),
        ((0,), {"timestep": 501}),
        ((0,), {"t": 501}),
    ):
        assert timestep_of(inputs, named) == 501.0


def test_only_what_has_rows_is_turned() -> None:
    order = [1, 0]
    rows, options = torch.tensor([[1.0], [2.0]]), {"cond_or_uncond": [0, 1]}
    inputs, named = reordered((rows, torch.tensor(5.0)), {"context": rows, "y": None, "control": options}, order)
    assert inputs[0].tolist() == [[2.0], [1.0]] and inputs[1] == 5.0
    assert named["context"].tolist() == [[2.0], [1.0]] and named["y"] is None and named["control"] is options
