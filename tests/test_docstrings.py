"""Docstrings say what a caller has to know: which errors a function raises, and the shapes of its tensors."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import lib_layerdiffuse

PACKAGE = Path(lib_layerdiffuse.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))
ROUTES = [PACKAGE / "webui" / "rest" / name for name in ("routes.py", "layers.py")]  # docstrings are texts of /docs
Function = ast.FunctionDef | ast.AsyncFunctionDef
ERROR = re.compile(r"\w*Error\b|\bRefused\b|\bTooLarge\b|[Tt]yped errors?\b")
# [B,4,H,W], [N,3 or 4,H,W], [...,H,W], uint8 [S,S,4]
SHAPE = re.compile(r"\[(?:\.\.\.|[\w*/+() -]+)(?:,(?:\.\.\.|[\w*/+() -]+))*\]|\bscalar\b|\bany shape\b|\bits shape\b")
TENSOR = re.compile(r"(?:torch\.)?Tensor")
# of which a tensor that stands for itself is part; mappings hold tensors of many shapes
HOLDERS = ("list", "tuple", "Sequence", "Iterable")


def public_functions(tree: ast.Module) -> Iterator[tuple[str, Function, str]]:
    """Name, node and docstrings (its own, its class's) of every function that other modules may call."""
    for node in tree.body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield node.name, node, ast.get_docstring(node) or ""
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            about = ast.get_docstring(node) or ""
            for member in node.body:
                if not isinstance(member, Function) or (member.name.startswith("_") and member.name != "__init__"):
                    continue
                own = ast.get_docstring(member)
                if own or not node.bases or member.name in ("__init__", "forward"):  # else it does what its base says
                    yield f"{node.name}.{member.name}", member, f"{own or ''} {about}"


def raised(function: Function) -> set[str]:
    """Names of what a function raises by itself: not in functions inside it, nor where it catches it again."""
    names: set[str] = set()
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Try) and node.handlers:
            waiting += [*node.handlers, *node.orelse, *node.finalbody]
        elif isinstance(node, ast.Raise) and node.exc is not None:
            called = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            names.add(called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", ""))
        elif not isinstance(node, (Function, ast.Lambda, ast.ClassDef)):
            waiting += ast.iter_child_nodes(node)
    return names


def unsaid(function: Function, text: str) -> list[str]:
    """Errors that a function raises and its text does not name; of one that another function makes, any is enough."""
    return [
        name
        for name in sorted(raised(function))
        if not (name in text if name[:1].isupper() else ERROR.search(text)) and "yped error" not in text
    ]


def holds_tensor(annotation: ast.expr | None) -> bool:
    """Whether a value is a tensor, or several in a row."""
    if isinstance(annotation, ast.BinOp):
        return holds_tensor(annotation.left) or holds_tensor(annotation.right)
    if isinstance(annotation, ast.Subscript):
        inner = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        return ast.unparse(annotation.value) in HOLDERS and any(map(holds_tensor, inner))
    return annotation is not None and TENSOR.fullmatch(ast.unparse(annotation)) is not None


def takes_or_gives_tensors(function: Function) -> bool:
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return any(holds_tensor(annotation) for annotation in (*(each.annotation for each in arguments), function.returns))


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", [path for path in MODULES if path not in ROUTES], ids=name_of)
def test_a_public_function_says_what_it_raises(path):
    functions = public_functions(ast.parse(path.read_text(encoding="utf-8")))
    silent = {name: unsaid(function, text) for name, function, text in functions}
    assert {name: errors for name, errors in silent.items() if errors} == {}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_public_function_says_the_shapes_of_its_tensors(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    about = ast.get_docstring(tree) or ""
    silent = [
        name
        for name, function, text in public_functions(tree)
        if takes_or_gives_tensors(function) and not SHAPE.search(f"{text} {about}")
    ]
    assert silent == []


def checked(source: str) -> tuple[list[str], list[str]]:
    """Functions of a source that do not say their errors, and those that do not say their shapes."""
    functions = list(public_functions(ast.parse(source)))
    return (
        [name for name, function, text in functions if unsaid(function, text)],
        [name for name, function, text in functions if takes_or_gives_tensors(function) and not SHAPE.search(text)],
    )


def test_the_check_sees_what_is_left_out():
    source = '''
class Codec:
    """InputError for what is none."""
    def __init__(self, x: torch.Tensor | None):
        raise InputError("x")
    def read(self, rows: list[Tensor]) -> None:
        """[B,4,H,W]; WeightsError for none."""
        raise WeightsError("x")
    def write(self) -> tuple[int, Tensor]:
        """A scalar and a tensor of any shape."""
        raise OutputError("x") from None
def helped(state: Mapping[str, Tensor]):
    """Typed errors."""
    raise refuse("x")
def quiet(a):
    """Nothing."""
    raise refuse("x")
def _private(a: Tensor):
    raise InputError("x")
def catches():
    """Nothing."""
    try:
        raise ValueError("x")
    except ValueError:
        def inner():
            raise InputError("x")
'''
    assert checked(source) == (["Codec.write", "quiet"], ["Codec.__init__"])
