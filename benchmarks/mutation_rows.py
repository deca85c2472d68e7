"""Faults put into the code on purpose, each with the rule that it breaks and the tests that are to see it."""

from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    """`old`, which stands once in `file` of the library, becomes `new`; `tests` are files below tests/."""

    file: str
    old: str
    new: str
    rule: str
    tests: tuple[str, ...]


FAULTS = (
    Fault(
        "core/offsets/merging.py",
        "self._switch(False)  # out of memory half-way",
        "pass  # out of memory half-way",
        "a merge that fails half-way gives all parameters back",
        ("core/offsets/test_half_done.py",),
    ),
    Fault(
        "core/offsets/merging.py",
        "if now.device != there.device:",
        "if False:",
        "a layer that the host moved meanwhile gets its parameter where the layer is",
        ("core/offsets/test_offsets.py", "core/offsets/test_half_done.py"),
    ),
    Fault(
        "core/offsets/merging.py",
        "if there.is_meta and not now.is_meta:",
        "if False:",
        "a model that the host threw away is not filled again",
        ("core/offsets/test_offsets.py", "core/offsets/test_half_done.py"),
    ),
    Fault(
        "core/offsets/offsets.py",
        "self.up.to(device).float() @ self.down.to(device).float().flatten(1)",
        "self.up.to(device) @ self.down.to(device).flatten(1)",
        "low-rank products are made in float32",
        ("core/offsets/test_half_done.py",),
    ),
    Fault(
        "core/offsets/installed.py",
        'mode="bilinear", antialias=True)\n            self._shaped',
        'mode="nearest")\n            self._shaped',
        "concat latents of another size are blended",
        ("core/offsets/test_half_done.py",),
    ),
    Fault(
        "core/sharing/sharing_unit.py",
        '.float() * strength).to(like) for part in ("weight", "bias"))',
        '.float() * (strength if part == "weight" else 1)).to(like) for part in ("weight", "bias"))',
        "the weight scales the bias of the control signal too",
        ("core/sharing/test_control_weight.py",),
    ),
    Fault(
        "unet/images.py",
        "resized = resize_image(composite_on_grey(rgba), height, width, resize_mode)",
        'resized = resize_image(composite_on_grey(rgba), height, width, "just-resize")',
        "the resize mode decides what a network sees of an image",
        ("unet/test_images.py",),
    ),
    Fault(
        "unet/images.py",
        "padded = np.concatenate([pad_rgb(rgba), ",
        "padded = np.concatenate([rgba[..., :3].astype(np.float32) / 255, ",
        "colours of invisible pixels never reach an edge",
        ("unet/test_images.py",),
    ),
    Fault(
        "unet/method_kinds.py",
        "return torch.cuda.is_available() and free_bytes(",
        "return torch.cuda.is_available() and not free_bytes(",
        "offsets spare memory where, and only where, the card is short of it",
        ("core/offsets/test_half_done.py", "webui/host/test_unet_pass.py", "core/test_memory.py"),
    ),
    Fault(
        "unet/method_kinds.py",
        "return merge_offsets(offsets, modules, strength, concat, spare, None if spare else kept.copies)",
        "return merge_offsets(offsets, modules, strength, concat, False, kept.copies)",
        "offsets on a card that is short of memory keep one copy of each parameter there",
        ("core/offsets/test_half_done.py", "webui/host/test_unet_pass.py", "core/test_memory.py"),
    ),
    Fault(
        "standalone/run_plan.py",
        "self.settings.seed + group * self.frames",
        "self.settings.seed + group",
        "seeds of later joint batches follow those of the first",
        ("standalone/test_run_plan.py",),
    ),
    Fault(
        "files/downloads.py",
        "if self.offline or constants.HF_HUB_OFFLINE:",
        "if False:",
        "offline asks nobody",
        ("files/test_downloads.py",),
    ),
    Fault(
        "webui/run.py",
        "on_grey(rgba_array(picture), height, width, self.arguments.resize_mode)",
        'on_grey(rgba_array(picture), height, width, "just-resize")',
        "the resize mode of a WebUI's job decides what its method sees",
        ("webui/test_rules.py",),
    ),
    Fault(
        "webui/keeping.py",
        "weighted = lower[..., :3] * lower[..., 3:] * (1 - share) + upper[..., :3] * upper[..., 3:] * share",
        "weighted = (lower[..., :3] * (1 - share) + upper[..., :3] * share) * alpha",
        "inpainting blends colours by their alpha, not straight ones",
        ("webui/test_rules.py",),
    ),
    Fault(
        "webui/keeping.py",
        "return (guided if colours_show_alpha(alpha, opaque) else enlarged)(alpha, opaque, colour)",
        "return (enlarged if colours_show_alpha(alpha, opaque) else guided)(alpha, opaque, colour)",
        "alpha is guided by colours where they show it, and enlarged plainly where they do not",
        ("webui/test_pictures.py",),
    ),
    Fault(
        "webui/pictures.py",
        "return codec.to(device, precision or default_dtype(device))",
        "return codec.to(device, default_dtype(device))",
        "the settings' precision is that of the decoder",
        ("webui/test_rules.py",),
    ),
    Fault(
        "webui/pictures.py",
        "latents[place : place + 1]",
        "latents[-1:]",
        "every picture is decoded with its own latent",
        ("webui/test_rules.py",),
    ),
    Fault(
        "webui/extras.py",
        "left, top = (picture.width - width) // 2, (picture.height - height) // 2",
        "left, top = 0, 0",
        'the alpha of "Crop to fit" is that of the middle',
        ("webui/test_rules.py",),
    ),
    Fault(
        "training/latents.py",
        "rgba[:, [3, 0, 1, 2]]",
        "rgba",
        "the transparency encoder is given alpha first",
        ("training/test_rules.py",),
    ),
    Fault(
        "training/augment.py",
        'padding_mode="zeros"',
        'padding_mode="border"',
        "what a zoom brings in from outside is transparent",
        ("training/test_rules.py",),
    ),
)
