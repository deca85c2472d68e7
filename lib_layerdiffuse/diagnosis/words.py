"""Words by which a prompt asks for a scene or for something soft, and by which checkpoints tell what they are."""

from __future__ import annotations

import re

# scenes: with them the picture is wanted full, and nothing in it is background that could be left out
PLACES = frozenset(
    """
    alley autumn background bathroom beach bedroom bridge campfire castle cave city cityscape classroom cloudscape coast
    corridor desert dunes factory farm field fields forest galaxy garden hall harbor harbour highway hill hills indoors
    island jungle kitchen lake landscape library meadow mountain mountains night ocean office outdoors outside park
    planets river road room ruins scenery scene sea seaside shore sky skyline snow snowy space stage stars starry street
    studio sunrise sunset sun swamp table theatre theater town underwater universe valley village waterfall winter woods
    """.split()
)
# a background that is plain helps alpha rather than hurts it
PLAIN = re.compile(
    r"\b(?:(?:plain|simple|solid|flat|neutral|gr[ae]y|white|black|green|blank|empty|transparent|no)\W+){1,3}"
    r"(?:colou?r(?:ed)?\W+)?background\b",
    re.IGNORECASE,
)
# half transparent all over, as it should be
SOFT = frozenset("aurora cloud clouds flames fog haze mist nebula smoke steam tulle vapor vapour veil".split())
DISTILLED = frozenset(("lightning", "lcm", "turbo", "hyper", "dmd", "tcd", "schnell", "pcm", "distill"))
FAR_TUNED = frozenset(("illustrious", "noob", "noobai", "pony", "animagine", "kohaku", "nai", "wai", "vpred"))
PREPOSITION = r"(?:in|on|at|by|under|before|among|inside|near|over|through)"
SCENE = re.compile(rf"\s*\b{PREPOSITION}\s+(?:[\w-]+\s+){{0,3}}(?:{'|'.join(sorted(PLACES))})\b", re.IGNORECASE)
WORD = re.compile(r"[a-z]+")
# what a WebUI loads beside the checkpoint
NETWORK = re.compile(r"<\s*(?:lora|lyco|lycoris|hypernet)\s*:\s*([^:>]+)[^>]*>", re.IGNORECASE)


def words_of(text: str) -> list[str]:
    """The words of a text, small, without digits; parts that capitals or signs join are words of their own."""
    return WORD.findall(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower())


def named_place(text: str) -> str:
    """The first word that asks for a scene; empty where none does. A plain background is none."""
    text = PLAIN.sub(" ", text).replace("under water", "underwater")
    return next((word for word in words_of(text) if word in PLACES), "")


def names_soft_things(text: str) -> bool:
    """Whether a text asks for something that is half transparent all over."""
    return any(word in SOFT for word in words_of(text))


def without_place(text: str) -> str:
    """A prompt without the scene that a thing is in: "a cat in a dark forest" is "a cat"; else as it is."""
    return SCENE.sub("", text).strip(" ,.") if SCENE.search(text) else text


def named_networks(text: str) -> tuple[str, ...]:
    """The LoRAs and hypernetworks that a prompt loads, each once."""
    return tuple(dict.fromkeys(name.strip() for name in NETWORK.findall(text)))


def without_networks(text: str) -> str:
    """A prompt that loads no LoRA or hypernetwork; as it is where it loads none."""
    return re.sub(r"\s{2,}", " ", NETWORK.sub(" ", text)).strip() if NETWORK.search(text) else text
