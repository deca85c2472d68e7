"""No module of another WebUI is imported. Last of its folder: it loads our modules anew, and others would see both."""

from __future__ import annotations

import importlib.abc
import sys

from fakes.running import picture, run

SINGLE = {"method": "sd15_fg"}
FOREIGN = {"a1111": ("backend", "diffusers", "ldm_patched", "modules_forge"), "forge": ("diffusers", "ldm_patched")}


class Absent(importlib.abc.MetaPathFinder):
    """Packages that are not installed."""

    def __init__(self, names):
        self.names = names

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_issue_11_no_module_of_another_webui_is_imported(monkeypatch, sd15, flavour) -> None:
    """ "No module named 'ldm_patched'"; and what a host's update renames (issues 1, 39, 72, 120, 153)."""
    ours = [name for name in sys.modules if name.startswith("lib_layerdiffuse.webui")]
    theirs = [name for name in sys.modules if name.partition(".")[0] in FOREIGN[flavour]]
    for name in (*ours, *theirs):
        parent, _, child = name.rpartition(".")
        if parent in sys.modules and hasattr(sys.modules[parent], child):  # where an import puts it, too
            monkeypatch.setattr(sys.modules[parent], child, getattr(sys.modules[parent], child))
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent(FOREIGN[flavour]), *sys.meta_path])
    sd15.reload_ui()
    outcome = run(sd15, SINGLE, init_images=[picture()], steps=2)
    assert outcome.modes == ["RGBA"] and outcome.error is None and not sd15.errors
