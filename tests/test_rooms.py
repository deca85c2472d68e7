"""The rooms of the library: a module imports its own room and lower ones; the core only what every host has."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import lib_layerdiffuse

PACKAGE = Path(lib_layerdiffuse.__file__).parent
# From the bottom to the top; what stands side by side knows nothing of each other.
STOREYS = (
    ("__version__",),
    ("core",),
    ("unet", "files"),
    ("sets", "diagnosis"),
    ("form",),
    ("standalone", "webui"),  # a WebUI has no diffusers
    ("api",),
    ("cli",),
    ("page", "training"),  # the command line finds them by their names alone
    ("__main__",),
)
CORE_STOREYS = (
    ("errors", "memory", "modes", "values"),
    ("bases",),
    ("methods", "rows", "stopping"),
    ("picture", "files"),
    ("codec", "offsets"),
    ("sharing",),
)
TRAINING_STOREYS = (
    ("grids", "options", "typed_modules"),
    ("settings",),
    ("engine", "pictures"),
    ("layer_sets", "codec"),
    ("diffusion",),
    ("layers",),
    ("cli",),
)
ROOFS = ("webui",)  # nothing stands on them
CORE_NEEDS = {"torch", "numpy", "PIL", "safetensors", "__future__"} | set(sys.stdlib_module_names)
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def levels(storeys: tuple[tuple[str, ...], ...]) -> dict[str, int]:
    """The height of each name."""
    return {name: level for level, names in enumerate(storeys) for name in names}


LEVEL = levels(STOREYS)
INNER_LEVEL = {"core": levels(CORE_STOREYS), "training": levels(TRAINING_STOREYS)}


def full_name(path: Path) -> str:
    """lib_layerdiffuse.core.errors; a package's own file keeps its `__init__`."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


@functools.cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """All of a module's syntax, read once for all tests."""
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@functools.cache
def imported(path: Path) -> tuple[str, ...]:
    """The full names of what a module imports, inside functions too."""
    return tuple(imports_of(nodes_of(path), full_name(path)))


def imports_of(nodes: Iterable[ast.AST], module: str) -> Iterator[str]:
    """The full names in the import statements of a module."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*start, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def upward(imports: Iterable[str], module: str) -> list[str]:
    """What of its imports a module may not import."""
    return [name for name in imports if not allowed(module.split("."), name.split("."))]


def upward_in(source: str, module: str) -> list[str]:
    """The same of a module's text."""
    return upward(imports_of(ast.walk(ast.parse(source)), module), module)


def allowed(module: list[str], name: list[str]) -> bool:
    """Whether a module may import a name, both in parts."""
    room = module[1]
    if name[0] != "lib_layerdiffuse":
        return room != "core" or name[0] in CORE_NEEDS
    if name[1] != room:
        return LEVEL[name[1]] < LEVEL[room] and name[1] not in ROOFS
    inner = INNER_LEVEL.get(room)
    return inner is None or name[2] == module[2] or inner[name[2]] < inner[module[2]]


def test_nothing_imports_upward():
    found = {full_name(path): upward(imported(path), full_name(path)) for path in MODULES}
    assert {module: names for module, names in found.items() if names} == {}


def test_the_library_imports_itself_relatively():
    """One way for all, that works under whatever name a WebUI loads the folder."""
    nodes = [(path, node) for path in MODULES for node in nodes_of(path) if isinstance(node, ast.ImportFrom)]
    named = [(full_name(path), node.module) for path, node in nodes if node.module]
    assert [one for one in named if one[1].startswith("lib_layerdiffuse")] == []


@functools.cache
def defined(path: Path, passed_on: bool) -> set[str]:
    """What a module itself defines, and what it says that it passes on (`__all__`, a package's own file) or imports."""
    names = {child.stem for child in path.parent.iterdir()} if path.name == "__init__.py" else set()
    for node in nodes_of(path):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, (ast.Import, ast.ImportFrom)) and passed_on:
            names |= {alias.asname or alias.name for alias in node.names}
    return names


@functools.cache
def offered(module: str) -> set[str]:
    """What other modules may import from a module, by its full name."""
    place = PACKAGE.parent.joinpath(*module.split("."))
    source = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    passed_on = "__all__" in source.read_text(encoding="utf-8")
    return defined(source, passed_on or source.name == "__init__.py")


def test_names_are_imported_from_where_they_are():
    """A name that another module merely passes on is gone when that module has no use for it any more."""
    names = [(full_name(path), *name.rpartition(".")[::2]) for path in MODULES for name in imported(path)]
    ours = [(path, module, name) for path, module, name in names if module.split(".")[0] == "lib_layerdiffuse"]
    assert [f"{path}: {name} in {module}" for path, module, name in ours if name not in offered(module)] == []


def test_the_check_sees_every_way_to_import():
    source = """
import modules, torch.nn
from backend.x import y
def f():
    import gradio as g
    from ...webui import script
    from ...unet.images import read_image
    from ..sharing import sharing_unit
    from ..errors import InputError
    from .weights import read_header
    import lib_layerdiffuse.form.ranges
"""
    ours = ["webui.script", "unet.images.read_image", "core.sharing.sharing_unit", "form.ranges"]
    found = upward_in(source, "lib_layerdiffuse.core.files.layer_files")
    assert found == ["modules", "backend.x.y", "gradio", *(f"lib_layerdiffuse.{name}" for name in ours)]


def test_rooms_of_one_storey_know_nothing_of_each_other():
    for other in ("page", "standalone", "cli"):
        assert upward_in(f"from ..{other} import x", "lib_layerdiffuse.webui.x")
    assert upward_in("from ..webui import script", "lib_layerdiffuse.page.x")
    assert not upward_in("from . import script\nfrom ..form import arguments", "lib_layerdiffuse.webui.x")
    assert upward_in("from ..codec import vae", "lib_layerdiffuse.training.layer_sets.x")
    assert upward_in("from ..cli import commands\n", "lib_layerdiffuse.training.layers.x")
    assert not upward_in("from ..codec import vae\nfrom ..engine import train", "lib_layerdiffuse.training.diffusion.x")


def test_no_module_needs_itself():
    """Not even by imports inside functions or for types alone: those are where such circles hide."""
    names = {full_name(path) for path in MODULES}
    needs = {
        full_name(path): {
            module for name in imported(path) for module in (name, name.rpartition(".")[0]) if module in names
        }
        for path in MODULES
    }
    TopologicalSorter(needs).prepare()  # or CycleError, which names the circle


def test_every_module_has_a_room():
    assert len(MODULES) > 100
    assert {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in MODULES} <= LEVEL.keys()
