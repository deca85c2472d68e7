from __future__ import annotations

import pytest
import torch
from rule import decoder_inputs
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from lib_layerdiffuse.core.codec.decoder import TransparencyUNet
from lib_layerdiffuse.core.codec.decoding import (
    ORIENTATIONS,
    TransparencyDecoder,
    bytes_per_pixel,
    exchanges,
    median,
    reflect,
)
from lib_layerdiffuse.core.codec.tiling import spans, tiled
from lib_layerdiffuse.core.errors import InputError


def small_network(seed: int = 0, kind: type[TransparencyUNet] = TransparencyUNet) -> TransparencyUNet:
    """Random weights, multiples of 16, latent factor 4, one level with attention."""
    torch.manual_seed(seed)
    network = kind((8, 8, 16, 16, 16), latent_level=2, attention_levels=1, layers=1)
    torch.nn.init.normal_(network.latent_conv_in.weight)
    torch.nn.init.constant_(network.conv_out.bias, 0.5)
    return network


def inputs(height: int, width: int, batch: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(height * 1000 + width)
    pixel = torch.rand(batch, 3, height, width, generator=generator)
    return pixel, torch.randn(batch, 4, -(-height // 4), -(-width // 4), generator=generator)


def published_median(network, pixel, latent, orientations=ORIENTATIONS) -> torch.Tensor:
    """The eight passes one after another and torch's own median, A,R,G,B."""
    with torch.no_grad():
        passes = [turn.undo(network(turn.apply(pixel), turn.apply(latent)).clamp(0, 1)) for turn in orientations]
    return torch.stack(passes).median(dim=0).values


def argb(rgba: torch.Tensor) -> torch.Tensor:
    return rgba[:, [3, 0, 1, 2]]


@pytest.mark.parametrize(("size", "file", "step"), [
    ((128, 128), "decoder_128x128", 1),
    # one of these passes runs always (test_decoder.py), and so do eight of Flux's decoder at 192x128
    pytest.param((192, 320), "decoder_192x320_every_third", 3, marks=pytest.mark.long),
], ids=["128x128", "192x320"])  # fmt: skip
def test_golden_median_of_eight(golden, published_decoder, size, file, step):
    pixel, latent = decoder_inputs(*size)
    result = TransparencyDecoder(published_decoder).decode(pixel, latent)
    expected = load_file(golden / f"{file}.safetensors")["augmented"]
    torch.testing.assert_close(argb(result)[:, :, ::step, ::step], expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(64, 64), (96, 128), (200, 256), (256, 264), (64, 128), (448, 64)], ids=str)
def test_issue_54_size_not_multiple_of_64(size):
    """Every size of the list on which the original fails or not."""
    decoder = TransparencyDecoder(small_network())
    pixel, latent = inputs(*size)
    result = decoder.decode(pixel, latent, passes=1)
    assert result.shape == (1, 4, *size) and result.dtype == torch.float32
    assert result.min() >= 0 and result.max() <= 1
    assert result.std() > 0.01  # a picture, not a constant that any size would give


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (9, 3), (5, 40), (31, 33)], ids=str)
def test_sizes_smaller_than_the_padding(size):
    decoder = TransparencyDecoder(small_network())
    result = decoder.decode(*inputs(*size), passes=8)
    assert result.shape == (1, 4, *size) and torch.isfinite(result).all()


def test_padding_neither_stretches_nor_moves():
    """A multiple of 16 is decoded as it is; a little less of it gives nearly the same picture where both are."""
    network = small_network()
    decoder = TransparencyDecoder(network)
    pixel, latent = inputs(64, 64)
    pixel[:], latent[:] = pixel.mean(), latent[:, :, :1, :1]  # even, so that a border changes nothing far away
    pixel[:, :, 8:24, 8:24] = 1
    whole = decoder.decode(pixel, latent, passes=1)
    torch.testing.assert_close(argb(whole), published_median(network, pixel, latent, ORIENTATIONS[:1]))
    cut = decoder.decode(pixel[:, :, :56, :60], latent[:, :, :14, :15], passes=1)
    torch.testing.assert_close(cut, whole[:, :, :56, :60], atol=0.02, rtol=0)


def test_reflection_keeps_pixels_above_their_latent():
    latent = torch.arange(3.0).view(1, 1, 1, 3)
    pixel = latent.repeat_interleave(4, dim=-1)
    torch.testing.assert_close(reflect(pixel, 1, 32), reflect(latent, 1, 8).repeat_interleave(4, dim=-1))
    assert reflect(latent, 1, 8).flatten().tolist() == [0, 1, 2, 2, 1, 0, 0, 1]


@pytest.mark.parametrize("size", [(32, 32), (32, 64)], ids=str)
def test_eight_passes_are_the_published_median(size):
    network = small_network()
    pixel, latent = inputs(*size, batch=3)
    result = TransparencyDecoder(network).decode(pixel, latent)
    torch.testing.assert_close(argb(result), published_median(network, pixel, latent), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (48, 64)], ids=str)
@pytest.mark.parametrize("chunk", [1, 3, 8, 100])
def test_chunks_and_batches_change_nothing(size, chunk):
    decoder = TransparencyDecoder(small_network())
    pixel, latent = inputs(*size, batch=2)
    together = decoder.decode(pixel, latent, chunk=chunk)
    alone = torch.cat([decoder.decode(pixel[i : i + 1], latent[i : i + 1], chunk=1) for i in range(2)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_issue_l27_c111_fewer_passes_take_the_middle():
    network = small_network()
    decoder = TransparencyDecoder(network)
    pixel, latent = inputs(32, 48)
    with torch.no_grad():
        single = [turn.undo(network(turn.apply(pixel), turn.apply(latent)).clamp(0, 1)) for turn in ORIENTATIONS[:4]]
    middle = torch.stack(single).sort(dim=0).values[1:3].mean(dim=0)
    expected = {1: single[0], 2: (single[0] + single[1]) / 2, 4: middle}
    for passes, values in expected.items():
        torch.testing.assert_close(argb(decoder.decode(pixel, latent, passes)), values, atol=1e-5, rtol=1e-5)
    with pytest.raises(InputError, match="1, 2, 4 or 8"):
        decoder.decode(pixel, latent, passes=3)


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_exchanges_sort_every_order(count):
    """The zero-one principle: a network that sorts all sequences of 0 and 1 sorts everything."""
    bits = torch.arange(2**count)[:, None] >> torch.arange(count) & 1
    values = list(bits.T)
    for low, high in exchanges(count):
        values[low], values[high] = torch.minimum(values[low], values[high]), torch.maximum(values[low], values[high])
    assert torch.equal(torch.stack(values), bits.T.sort(dim=0).values)


def test_median_of_eight_is_the_lower_one():
    values = torch.rand(8, 2, 4, 5, 6)
    assert torch.equal(median(list(values)), values.median(dim=0).values)


class Watch(TorchDispatchMode):
    """Notes the name of every operation that torch runs."""

    def __init__(self):
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.name())
        return function(*args, **(kwargs or {}))


def test_issue_62_no_sort_or_median_that_macs_abort_on():
    decoder = TransparencyDecoder(small_network())
    with Watch() as watch:
        decoder.decode(*inputs(32, 48, batch=2))
    assert "aten::minimum" in watch.names
    assert not [name for name in watch.names if any(word in name for word in ("sort", "median", "topk", "kthvalue"))]


class Cramped(TransparencyUNet):
    """Runs out of memory as a GPU does when more than `room` pictures come at once."""

    room = 3

    def forward(self, pixel, latent):
        self.__dict__.setdefault("seen", []).append(len(pixel))
        if len(pixel) > self.room:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return super().forward(pixel, latent)


def test_out_of_memory_halves_the_chunk_and_goes_on():
    network = small_network(kind=Cramped)
    calls = []
    pixel, latent = inputs(32, 32, batch=2)
    result = TransparencyDecoder(network).decode(
        pixel, latent, chunk=8, progress=lambda done, total: calls.append((done, total))
    )
    assert network.seen == [8, 4] + [2] * 8
    assert calls == [(done, 16) for done in range(2, 17, 2)]
    plain = TransparencyDecoder(small_network()).decode(pixel, latent)
    torch.testing.assert_close(result, plain, atol=1e-5, rtol=1e-5)


def test_out_of_memory_with_one_picture_is_a_typed_error():
    network = small_network(kind=Cramped)
    network.room = 0
    with pytest.raises(InputError, match="smaller picture"):
        TransparencyDecoder(network).decode(*inputs(32, 32))
    assert network.seen == [4, 2, 1]


def test_other_errors_are_not_taken_for_missing_memory():
    network = small_network()
    network.conv_out = torch.nn.Conv2d(5, 4, 1)
    with pytest.raises(RuntimeError, match="channels"):
        TransparencyDecoder(network).decode(*inputs(32, 32))


def test_a_picture_of_10000_pixels_that_no_memory_holds_is_a_typed_error(monkeypatch):
    monkeypatch.setattr("lib_layerdiffuse.core.codec.decoding.free_bytes", lambda device: 2**30)
    decoder = TransparencyDecoder(small_network())
    # expanded, so that the test itself needs no memory for them
    pixel, latent = (
        torch.zeros(1, 1, 1, 1).expand(1, 3, 10_000, 10_000),
        torch.zeros(1, 1, 1, 1).expand(1, 4, 2500, 2500),
    )
    with pytest.raises(InputError, match=r"1.0 GiB of memory at hand"):
        decoder.decode(pixel, latent)


def test_chunk_follows_the_memory_at_hand(monkeypatch):
    network = small_network(kind=Cramped)
    network.room = 100
    decoder = TransparencyDecoder(network)
    needed = bytes_per_pixel(network, torch.float32) * 32 * 32
    for share, largest in ((1.5, 1), (3.0, 2), (100.0, 4)):
        network.seen = []
        monkeypatch.setattr("lib_layerdiffuse.core.codec.decoding.free_bytes", lambda device, s=share: int(needed * s))
        decoder.decode(*inputs(32, 32))
        assert max(network.seen) == largest


def test_progress_may_stop_the_work():
    class Stop(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done >= 2:
            raise Stop

    network = small_network(kind=Cramped)
    with pytest.raises(Stop):
        TransparencyDecoder(network).decode(*inputs(32, 32), chunk=1, progress=stop)
    assert len(network.seen) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_dtype_on_a_cpu(dtype):
    pixel, latent = inputs(32, 48)
    exact = TransparencyDecoder(small_network()).decode(pixel, latent)
    result = TransparencyDecoder(small_network().to(dtype)).decode(pixel.to(dtype), latent.to(dtype))
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, exact, atol=0.05, rtol=0)


@pytest.mark.parametrize("place", [0, -1])
def test_a_network_that_was_moved_in_part_is_moved_wholly(place):
    network = small_network()
    TransparencyDecoder(network)
    weights = [weight for weight in network.parameters() if weight.dim() == 4]
    weights[place].data = weights[place].data.to(torch.float16, memory_format=torch.contiguous_format)
    TransparencyDecoder(network)
    assert {weight.dtype for weight in network.parameters()} == {torch.float32}
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_dtype_on_cuda(dtype):
    pixel, latent = inputs(32, 48)
    exact = TransparencyDecoder(small_network()).decode(pixel, latent)
    decoder = TransparencyDecoder(small_network(), "cuda", dtype)
    result = decoder.decode(pixel, latent)
    assert result.device.type == "cuda" and decoder.network.conv_in.weight.dtype == dtype
    torch.testing.assert_close(result.cpu(), exact, atol=0.05, rtol=0)


def test_a_hosts_autocast_does_not_round_the_result():
    decoder = TransparencyDecoder(small_network())
    pixel, latent = inputs(32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = decoder.decode(pixel, latent)
    assert torch.equal(rounded, decoder.decode(pixel, latent))


def test_results_are_ordinary_tensors():
    decoder = TransparencyDecoder(small_network())
    for passes in (1, 8):
        result = decoder.decode(*inputs(32, 32), passes=passes)
        assert not result.is_inference()
        result += 1  # an inference tensor would refuse


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_latents_and_pixels(bad):
    decoder = TransparencyDecoder(small_network())
    for spoiled in (0, 1):
        pair = inputs(32, 32)
        pair[spoiled][0, 0, 0, 0] = bad
        with pytest.raises(InputError, match="float32 or bfloat16"):
            decoder.decode(*pair)


def test_wrong_inputs_are_typed_errors():
    decoder = TransparencyDecoder(small_network())
    pixel, latent = inputs(32, 32)
    with pytest.raises(InputError, match=r"\[1, 4, 8, 8\]"):
        decoder.decode(pixel, latent[:, :, :4])
    with pytest.raises(InputError, match="decoder made for this VAE"):
        decoder.decode(pixel, torch.randn(1, 16, 8, 8))
    with pytest.raises(InputError, match="latent"):
        decoder.decode(pixel, latent.repeat(2, 1, 1, 1))
    with pytest.raises(InputError, match=r"\[B,3,H,W\]"):
        decoder.decode(torch.rand(1, 4, 32, 32), latent)
    with pytest.raises(InputError, match=r"pixels in \[0,1\]"):
        decoder.decode(pixel * 2 - 1, latent)
    with pytest.raises(InputError, match=r"pixels in \[0,1\]"):
        decoder.decode(pixel * 255, latent)
    with pytest.raises(InputError, match="chunk"):
        decoder.decode(pixel, latent, chunk=0)


class Narrow(TransparencyUNet):
    """Runs out of memory as a GPU does when a picture has more than 330 x 330 pixels."""

    def forward(self, pixel, latent):
        if pixel[0, 0].numel() > 330 * 330:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return super().forward(pixel, latent)


@pytest.mark.parametrize("size", [(320, 520), (300, 777)])
def test_pictures_too_large_for_the_memory_are_decoded_in_tiles(caplog, size):
    pixel, latent = inputs(*size)
    whole = TransparencyDecoder(small_network()).decode(pixel, latent, passes=1)
    tiles = TransparencyDecoder(small_network(kind=Narrow)).decode(pixel, latent, passes=1)
    assert "in tiles of" in caplog.text
    assert tiles.shape == whole.shape
    # normalisation sees the tile instead of the picture, so equality is not to be had; a wrong place would show
    error = (tiles - whole).abs().mean()
    assert error < 0.2 * (tiles - whole.flip(-1)).abs().mean()


def test_tiles_of_a_constant_picture_join_without_a_seam():
    def constant(pixels, latents):
        return torch.full((1, 1, *(span.stop - span.start for span in pixels)), 0.25)

    joined = tiled((300, 700), 256, 8, constant)
    assert torch.allclose(joined, torch.full((1, 1, 300, 700), 0.25))
    assert [(span.start, span.stop) for span in spans(700, 256, 8)] == [(0, 256), (144, 400), (296, 552), (440, 700)]
