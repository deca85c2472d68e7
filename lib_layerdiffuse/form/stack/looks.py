"""What the Layers tab shows besides components: its style sheet, thumbnails in its list, messages, progress."""

from __future__ import annotations

import base64
import html
import io

from PIL import Image

from ...core.errors import LayerDiffuseError
from ...sets.stack import StackLayer, StackState

PREFIX = "layerdiffuse_layers"
THUMBNAIL = 44  # pixels
THUMBNAIL_KEY = "layerdiffuse_thumbnail"
CSS = """
#layerdiffuse_layers .ld-layers-hidden, .ld-layers-hidden { display: none !important; }
#layerdiffuse_layers_list { max-height: 26rem; overflow-y: auto; }
#layerdiffuse_layers_list .wrap { display: flex; flex-direction: column; flex-wrap: nowrap; gap: 4px;
  align-items: stretch; }
#layerdiffuse_layers_list label { width: 100%; min-height: 56px; padding: 6px 10px 6px 62px; position: relative;
  align-items: center; border: 1px solid var(--border-color-primary); border-radius: var(--radius-md, 6px);
  background: var(--block-background-fill); box-shadow: none; color: var(--body-text-color); display: flex; }
#layerdiffuse_layers_list label::before { content: ""; position: absolute; left: 8px; top: 50%; width: 44px;
  height: 44px;
  transform: translateY(-50%); border-radius: 4px; background-size: contain, 12px 12px; background-position: center;
  background-repeat: no-repeat, repeat; }
#layerdiffuse_layers_list label:has(input:checked) { border-color: var(--color-accent, #059669);
  outline: 1px solid var(--color-accent, #059669); }
#layerdiffuse_layers_list label span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; color: inherit; }
#layerdiffuse_layers_asking, #layerdiffuse_layers_given { flex-grow: 0; }
#layerdiffuse_layers_composite { min-height: 320px; }
#layerdiffuse_layers_composite .image-frame { width: 100%; }
#layerdiffuse_layers_messages, #layerdiffuse_layers_progress, #layerdiffuse_layers_style { padding: 0 !important;
  border: none !important; min-height: 0 !important; overflow: visible; }
#layerdiffuse_layers_style { display: none; }
.ld-layers-message { border-radius: var(--radius-md, 6px); padding: 0.5rem 0.8rem; line-height: 1.4; margin: 0 0 4px; }
.ld-layers-message * { color: inherit !important; }
.ld-layers-error { background: #fdecec; color: #7a1212 !important; border: 1px solid #f2b8b8; }
.ld-layers-hint { background: #fff6e0; color: #5f4300 !important; border: 1px solid #ecd08c; }
.dark .ld-layers-error { background: #421717; color: #ffd4d4 !important; border-color: #7a2c2c; }
.dark .ld-layers-hint { background: #3a2e10; color: #ffe6ac !important; border-color: #6d571e; }
.ld-layers-bar { height: 1.7rem; border-radius: var(--radius-md, 6px); overflow: hidden; position: relative;
  background: var(--background-fill-secondary); border: 1px solid var(--border-color-primary); }
.ld-layers-bar > div { height: 100%; background: var(--color-accent, #059669); opacity: 0.35; transition: width 0.2s; }
.ld-layers-bar > span { position: absolute; inset: 0; padding: 0 0.8rem; line-height: 1.6rem; font-size: 0.85rem;
  color: var(--body-text-color); }
"""
ARRIVED = "<i data-arrived></i>"  # by which a script knows that the browser was known
BOARD = "repeating-conic-gradient(#bdbdbd 0 25%, #ececec 0 50%)"


def style_html(state: StackState) -> str:
    """The style sheet, with the composite's shape on a checkerboard and a thumbnail for each line of the list."""
    place = f"#{PREFIX}_list label:nth-of-type"
    rows = [
        f'{place}({number})::before {{ background-image: url("{thumbnail(layer)}"), {BOARD}; }}'
        + ("" if layer.visible else f"\n{place}({number}) {{ opacity: 0.55; }}")
        for number, layer in enumerate(reversed(state.layers), 1)
    ]
    share = state.width / state.height
    rows.append(
        f"#{PREFIX}_composite img {{ width: min(100%, {62 * share:.2f}vh) !important; height: auto !important; "
        f"aspect-ratio: {state.width} / {state.height}; object-fit: fill; margin: 0 auto; cursor: default; "
        f"max-height: none; background: {BOARD} 0 0 / 24px 24px; }}"
    )
    return "<style>" + CSS + "\n".join(rows) + "</style>" + ARRIVED


def thumbnail(layer: StackLayer) -> str:
    """A small picture of a layer as a data address, made once."""
    kept = vars(layer.picture)  # it stays as long as the picture does
    if THUMBNAIL_KEY not in kept:
        small = layer.picture.copy()
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        target = io.BytesIO()
        small.save(target, format="PNG")
        kept[THUMBNAIL_KEY] = "data:image/png;base64," + base64.b64encode(target.getvalue()).decode()
    return kept[THUMBNAIL_KEY]


def titles(state: StackState) -> list[tuple[str, str]]:
    """Lines of the list, top layer first: what is shown, and the key as a text."""
    return [(title(layer), str(layer.key)) for layer in reversed(state.layers)]


def title(layer: StackLayer) -> str:
    """A layer in the list."""
    told = [layer.name]
    if layer.role == "background":
        told.append("background")
    if layer.opacity < 1:
        told.append(f"{layer.opacity:.0%}")
    if not layer.visible:
        told.append("hidden")
    return " · ".join(told)


def preview(state: StackState, side: int) -> Image.Image | None:
    """The composite as it is shown, its sides at most so many pixels: RGBA; None for an empty stack."""
    if not state.layers:
        return None
    composite = state.composite()
    composite.thumbnail((side, side))
    return composite


def error_html(error: LayerDiffuseError) -> str:
    """A typed error: what was wrong, what was expected, what to do."""
    got, expected, what_to_do = (html.escape(text) for text in (error.got, error.expected, error.what_to_do))
    body = f"<b>Got {got}.</b> Expected: {expected}.<br>What to do: {what_to_do}."
    return f'<div class="ld-layers-message ld-layers-error" role="alert">{body}</div>'


def notes_html(notes: list[str]) -> str:
    """Messages that are no errors."""
    lines = dict.fromkeys(notes)
    return "".join(f'<div class="ld-layers-message ld-layers-hint" role="status">{html.escape(n)}</div>' for n in lines)


def progress_html(fraction: float, text: str) -> str:
    """A bar with a text on it."""
    percent = round(100 * fraction)
    state = f'role="progressbar" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{percent}"'
    label = html.escape(f"{text} · {percent} %")
    return f'<div class="ld-layers-bar" {state}><div style="width:{percent}%"></div><span>{label}</span></div>'
