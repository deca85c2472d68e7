"""Fixtures of the WebUI's tests."""

from fakes.fixtures import flavour, layers, make_webui, sd15, sdxl

__all__ = ["flavour", "layers", "make_webui", "sd15", "sdxl"]
