"""What the routes take and give, as FastAPI describes it; runs on pydantic 1 and 2."""

from typing import Any

from pydantic import BaseModel, Field

LONGEST_TEXT = 64_000_000  # characters of base64: a picture of the largest size that is taken
PNG, SAFETENSORS = "base64 of a PNG, WebP or JPEG file", "base64 of a safetensors file"


class Version(BaseModel):
    version: str = Field(description="of the extension")
    host: str = Field(description="the family of WebUIs that it found itself in")
    base: str | None = Field(None, description="id of the loaded checkpoint's base; null: none that it knows")


class ArgumentRow(BaseModel):
    name: str
    label: str
    kind: str
    help: str = ""
    default: Any = None
    choices: list[Any] = []
    minimum: float
    maximum: float
    step: float


class MethodRow(BaseModel):
    id: str
    label: str
    title: str
    mode: str
    base: str
    frames: list[str]
    transparent_frames: int = Field(description="how many of the frames, from the first on, are RGBA")
    images: list[str] = Field(description="frames that must be given")
    steps: list[str] = Field(description="the methods of a chain, one after the other; of a method itself")
    files: list[str] = Field(description="layer files that it needs")


class FileRow(BaseModel):
    name: str
    purpose: str
    present: bool
    path: str | None = Field(None, description="where it was found")
    size: int | None = Field(None, description="bytes")


class Problem(BaseModel):
    got: str
    expected: str
    what_to_do: str


class Transfer(BaseModel):
    running: bool
    doing: str | None = Field(None, description="the file at hand and how much of it has arrived")
    done: list[str] = []
    error: Problem | None = None


class Files(BaseModel):
    repository: str
    licence: str
    folder: str = Field(description="where downloads go")
    files: list[FileRow]
    transfer: Transfer


class FetchRequest(BaseModel):
    names: list[str] | None = Field(None, description="files to download; null: all that the base lacks")
    base: str | None = Field(None, description="id of a base; null: the loaded checkpoint's")


class EncodeRequest(BaseModel):
    image: str = Field(description=f"{PNG}, with transparency", max_length=LONGEST_TEXT)


class Encoded(BaseModel):
    base: str
    width: int
    height: int
    latent: str = Field(description=f'{SAFETENSORS} with "latent" [1,4,h,w] float32 in the sampler\'s scale')
    image: str = Field(description="base64 of a PNG: what the VAE was shown, without transparency")


class DecodeRequest(BaseModel):
    latent: str = Field(
        description=f"{SAFETENSORS} with one tensor [B,4,h,w] in the sampler's scale", max_length=LONGEST_TEXT
    )
    passes: int | None = Field(None, description="orientations that vote: 1, 2, 4 or 8; null: the base's best")
    width: int | None = Field(None, description="to crop the picture to; null: all of it")
    height: int | None = Field(None, description="likewise")


class Decoded(BaseModel):
    base: str
    images: list[str] = Field(description="base64 of RGBA PNGs")


STATUS_TEXTS: dict[int, str] = {
    404: "a layer file that is not there",
    409: "another base model, or a download that is under way",
    422: "an input that cannot be used",
    507: "no room to write",
}
