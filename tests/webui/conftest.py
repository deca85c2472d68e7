"""Fixtures of the WebUI's tests."""

from fakes.fixtures import a1111, before_image_saved, flavour, forge, layers, make_webui, sd15, sdxl

__all__ = ["a1111", "before_image_saved", "flavour", "forge", "layers", "make_webui", "sd15", "sdxl"]
