"""What this project uses of transformers; its own index of models takes a type checker longer than all our code."""

from collections.abc import Sequence
from os import PathLike
from typing import Any

from torch import Tensor, nn
from typing_extensions import Self

Path = str | PathLike[str]

class CLIPTextConfig:
    def __init__(self, **shape: Any) -> None: ...
    @classmethod
    def from_pretrained(cls, path: Path, **options: Any) -> Self: ...
    def to_dict(self) -> dict[str, Any]: ...

class Encoded:
    last_hidden_state: Tensor

class CLIPTextModel(nn.Module):
    config: CLIPTextConfig
    def __init__(self, config: CLIPTextConfig) -> None: ...
    def __call__(self, input_ids: Tensor, **options: Any) -> Encoded: ...

class Tokens:
    input_ids: Tensor

class CLIPTokenizer:
    backend_tokenizer: Any
    def __len__(self) -> int: ...
    def __call__(self, text: str | Sequence[str], **options: Any) -> Tokens: ...
    @classmethod
    def from_pretrained(cls, path: Path, **options: Any) -> Self: ...
    def get_vocab(self) -> dict[str, int]: ...
    def save_pretrained(self, path: Path, **options: Any) -> Any: ...
