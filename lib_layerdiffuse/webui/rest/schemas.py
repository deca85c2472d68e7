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


class LayerRow(BaseModel):
    name: str = ""
    image: str = Field(description=PNG, max_length=LONGEST_TEXT)
    left: int = 0
    top: int = 0
    opacity: float = Field(1.0, description="0 to 1")
    visible: bool = True
    role: str = Field("layer", description="background, foreground, blended or layer")
    prompt: str = ""
    seed: int | None = None


class LayerSetBody(BaseModel):
    width: int
    height: int
    layers: list[LayerRow] = Field(description="bottom first")
    blended: str | None = Field(None, description=f"{PNG}: what the layers were painted to blend to")


class FindOutRequest(BaseModel):
    tab: str = Field("txt2img", description="txt2img or img2img: that of the API's last job with a transparent picture")


class PictureRow(BaseModel):
    empty: float = Field(description="share of its pixels that is invisible, 0 to 1")
    between: float = Field(description="share that is half transparent")
    opaque: float
    visible: float
    verdict: str | None = Field(None, description="opaque, empty or haze; null: fine")


class RunRow(BaseModel):
    name: str
    error: str | None = None
    pictures: list[PictureRow]


class FoundOut(BaseModel):
    conclusion: str
    helpful: list[str] = Field(description="names of the runs that the conclusion speaks of")
    runs: list[RunRow]


class ExportRequest(LayerSetBody):
    format: str = Field("psd", description="psd, ora, zip, webp or sprites; of the last two a ZIP")
    trim: bool | None = Field(None, description="cut layers to what is visible; null: as the format is best")
    threshold: int = Field(16, description="alpha of 255 that trimming keeps")
    padding: int | None = None
    shape: str = Field("as-it-is", description="as-it-is, square or power-of-two")
    premultiplied: bool = False
    recomposite: bool = False
    keep_blended: bool = True


class Exported(BaseModel):
    file: str = Field(description="base64 of the file")
    suffix: str
    notes: list[str]


class ImportRequest(BaseModel):
    file: str = Field(description="base64 of a PSD, OpenRaster or ZIP file", max_length=4 * LONGEST_TEXT)


class Imported(LayerSetBody):
    foreground: str | None = Field(None, description="PNG of the set's size: all that lies on the background")
    background: str | None = Field(None, description="likewise: the lowest layer, where it fills the canvas")


STATUS_TEXTS: dict[int, str] = {
    404: "a layer file that is not there",
    409: "another base model, or a download that is under way",
    422: "an input that cannot be used",
    501: "psd-tools is not installed, which reads PSD files",
    507: "no room to write",
}
