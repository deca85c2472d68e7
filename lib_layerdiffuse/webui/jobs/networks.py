"""The networks that jobs need, read once and kept on the CPU between jobs: by file, and of one base at a time."""

from __future__ import annotations

from typing import Any

import torch

from ...core.bases import BASES
from ...core.codec.codec import TransparencyCodec
from ...core.codec.reading import read_codec
from ...core.files.codec_parts import DECODER, ENCODER
from ...core.files.weights import keep_latest, stamp
from ...core.memory import is_roomy
from ...core.methods import Method
from ...core.offsets.install import parameter_shapes
from ...files.layer_catalogue import Catalogue
from ...files.layer_choice import Files
from ...unet.method_kinds import Modules, read_method


class Networks:
    """At most one of each kind: the last method's weights, decoder and encoder."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[tuple, Any]] = {}
        self.catalogue = Catalogue()
        self._base = ""
        self.owner: object = None  # who uses them now

    def method(self, files: Files, method: Method, modules: Modules) -> Any:
        """The weights of a method, checked against this UNet."""
        self._turn_to(method.base)
        path = files.find(method.weights)
        shapes = frozenset(parameter_shapes(modules).items())
        return keep_latest(
            self._kept,
            "method",
            (stamp(path), method.id, method.kind, shapes),
            lambda: read_method(path, modules, method),
        )

    def decoder(self, files: Files, base: str) -> TransparencyCodec:
        """The transparency decoder of a base, on the CPU."""
        self._turn_to(base)
        path = files.find(BASES[base].decoder)
        rule = BASES[base].codec.rule
        return keep_latest(self._kept, DECODER, stamp(path), lambda: read_codec(path, DECODER, rule))

    def encoder(self, files: Files, base: str) -> TransparencyCodec:
        """The transparency encoder of a base with its rule, on the CPU, float32."""
        self._turn_to(base)
        path = files.find(BASES[base].encoder)
        rule = BASES[base].codec.rule
        return keep_latest(self._kept, ENCODER, stamp(path), lambda: read_codec(path, ENCODER, rule))

    def _turn_to(self, base: str) -> None:
        """Forget the networks of another base: who changes the checkpoint has no use for them."""
        if base != self._base:
            self._kept.clear()
        self._base = base

    def rest(self, device: torch.device) -> None:
        """After a job: networks go back to the CPU; what was merged stays for the next where `device` is roomy."""
        self.owner = None
        for _, network in self._kept.values():
            if isinstance(network, TransparencyCodec):
                network.to("cpu")
        if not is_roomy(device):
            self.forget_merged()

    def rest_for(self, owner: object, device: torch.device) -> None:
        """The same, unless somebody else uses them by now."""
        if self.owner is owner:
            self.rest(device)

    def forget_merged(self) -> None:
        """Free what was merged with a checkpoint's weights: a job without us must not miss that memory."""
        weights = self._kept.get("method", (None, None))[1]
        if weights is not None:
            weights.release()


def default_dtype(device: torch.device) -> torch.dtype:
    """Half precision where it is fast."""
    return torch.float16 if device.type in ("cuda", "mps", "xpu") else torch.float32
