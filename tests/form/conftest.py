"""Fixtures of the tests of what WebUIs show."""

from fakes.fixtures import a1111, flavour, forge, layers, make_webui, sd15, sdxl

__all__ = ["a1111", "flavour", "forge", "layers", "make_webui", "sd15", "sdxl"]
