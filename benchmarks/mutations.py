"""How many faults the tests see: faults put into a copy of the code, one at a time, with the tests that are to fail.

    python benchmarks/mutations.py                         the faults of mutation_rows.py and mutation_rows_layers.py
    python benchmarks/mutations.py --every 10              and each tenth of all single changes of the files in SWEPT
    python benchmarks/mutations.py --only keeping          those whose file or rule has this text

Prints each fault that no test saw, and the figure. A single change is a comparison, a sign, a number, `and`, `not` or a
truth value turned into another; some change nothing that can be seen, so not all of them can be caught.
"""

from __future__ import annotations

import argparse
import ast
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mutation_rows import FAULTS, Fault
from mutation_rows_layers import LAYER_FAULTS

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = "lib_layerdiffuse"
EVERY_FAULT = (*FAULTS, *LAYER_FAULTS)
LONGEST = 600  # seconds that the tests of one fault may take: a fault may be an endless loop
PASSED, FAILED, BROKEN = 0, 1, 2  # pytest's exit codes: the last where a test file cannot be imported any more
# files that compute alone, and the tests that know them
PROPERTIES, PARSERS = "core/test_properties.py", "form/test_parsers.py"
SWEPT = {
    "core/picture/alpha.py": ("core/picture/test_alpha.py", PROPERTIES),
    "core/picture/resize.py": ("core/picture/test_resize.py", "core/picture/test_alpha.py", PROPERTIES),
    "core/picture/sizes.py": ("core/picture/test_sizes.py",),
    "core/picture/boxes.py": ("core/picture/test_boxes.py", PROPERTIES),
    "core/codec/tiling.py": ("core/codec/test_decoding.py", PROPERTIES),
    "core/codec/decoding.py": ("core/codec/test_decoding.py",),
    "core/files/weights.py": ("core/files/test_weights.py", "core/files/test_layer_files.py"),
    "core/rows.py": ("core/offsets/test_offsets.py", PROPERTIES),
    "form/values.py": ("form/test_arguments.py", "core/picture/test_sizes.py", PARSERS),
    "form/ranges.py": ("standalone/test_settings.py", PARSERS),
    "webui/host/row_map.py": ("webui/host/test_row_map.py",),
}
SIGNS = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.FloorDiv: ("//", "*"),
    ast.Div: ("/", "*"),
    ast.And: ("and", "or"),
    ast.Or: ("or", "and"),
}


class Text:
    """A source file, changed at places that its syntax tree names."""

    def __init__(self, source: str):
        self.source = source
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line.encode()))

    def at(self, line: int, column: int) -> int:
        """The byte at a line (from 1) and column of the tree."""
        return self.starts[line - 1] + column

    def end(self, node: ast.expr) -> int:
        """The byte behind a node."""
        line = node.lineno if node.end_lineno is None else node.end_lineno
        return self.at(line, node.end_col_offset or node.col_offset)

    def changed(self, begin: int, end: int, old: str, new: str) -> str | None:
        """The source with the one `old` between two bytes replaced; None where it is not there once."""
        content = self.source.encode()
        between = content[begin:end].decode()
        if between.count(old) != 1:
            return None
        return content[:begin].decode() + between.replace(old, new) + content[end:].decode()


def single_changes(source: str) -> Iterator[tuple[int, str]]:
    """Line and whole new text of every single change of a file."""
    text = Text(source)
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.expr):
            continue
        for begin, end, old, new in places(node, text):
            changed = text.changed(begin, end, old, new)
            if changed is not None:
                yield node.lineno, changed


def places(node: ast.expr, text: Text) -> Iterator[tuple[int, int, str, str]]:
    """Where a node can be changed: first and last byte, what stands there, what shall."""
    if isinstance(node, ast.Compare):
        operands = [node.left, *node.comparators]
        yield from between(operands, [type(operator) for operator in node.ops], text)
    elif isinstance(node, ast.BoolOp):
        yield from between(node.values, [type(node.op)] * (len(node.values) - 1), text)
    elif isinstance(node, ast.BinOp):
        yield from between([node.left, node.right], [type(node.op)], text)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield text.at(node.lineno, node.col_offset), text.at(node.operand.lineno, node.operand.col_offset), "not ", ""
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        old = ast.unparse(node)
        new = str(not node.value) if isinstance(node.value, bool) else ast.unparse(ast.Constant(node.value + 1))
        yield text.at(node.lineno, node.col_offset), text.end(node), old, new


def between(operands: list[ast.expr], kinds: list[type], text: Text) -> Iterator[tuple[int, int, str, str]]:
    """The signs between operands."""
    for left, right, kind in zip(operands[:-1], operands[1:], kinds, strict=True):
        if kind in SIGNS:
            begin, end = text.end(left), text.at(right.lineno, right.col_offset)
            yield (begin, end, *SIGNS[kind])


def sweep(every: int) -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    """File, new text, name and tests of each `every`-th single change."""
    number = 0
    for file, tests in SWEPT.items():
        source = (ROOT / LIBRARY / file).read_text(encoding="utf-8")
        for line, changed in single_changes(source):
            number += 1
            if number % every == 0:
                pairs = zip(source.splitlines(), changed.splitlines(), strict=False)
                shown = next((new.strip() for old, new in pairs if old != new), "")
                yield file, changed, f"line {line}: {shown}", tests


def listed() -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    """The same of the rows."""
    for fault in EVERY_FAULT:
        yield fault.file, applied(fault), fault.rule, fault.tests


def applied(fault: Fault) -> str:
    """The text of a row's file with its fault; ValueError where the code has changed since."""
    source = (ROOT / LIBRARY / fault.file).read_text(encoding="utf-8")
    if source.count(fault.old) != 1:
        raise ValueError(f"{fault.file} has {source.count(fault.old)} times: {fault.old}")
    return source.replace(fault.old, fault.new)


def copied(folder: Path) -> Path:
    """A copy of the files that git knows, in their present state."""
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in names.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def is_seen(copy: Path, file: str, changed: str, tests: tuple[str, ...]) -> bool:
    """Whether a test fails on a fault in a copy, which is mended again."""
    path = copy / LIBRARY / file
    whole = path.read_text(encoding="utf-8")
    path.write_text(changed, encoding="utf-8")
    command = [sys.executable, "-B", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(copy)}
    try:
        ran = subprocess.run(
            [*command, *(f"tests/{test}" for test in tests)],
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LONGEST,
        )
    except subprocess.TimeoutExpired:
        return True
    finally:
        path.write_text(whole, encoding="utf-8")
    if ran.returncode not in (PASSED, FAILED, BROKEN):
        raise ValueError(f"the tests of {file} do not run: {ran.stdout[-500:]}{ran.stderr[-500:]}")
    return ran.returncode != PASSED


def main() -> None:
    """Run what the options choose."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=0, help="also each so-many-th single change of the files in SWEPT")
    parser.add_argument("--only", default="", help="only faults whose file or rule has this text")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    faults = [*listed(), *(sweep(options.every) if options.every else ())]
    faults = [fault for fault in faults if options.only in fault[0] or options.only in fault[2]]
    with tempfile.TemporaryDirectory() as folder:
        folders = [copied(Path(folder) / str(number)) for number in range(options.processes)]

        def share(number: int) -> list[tuple[str, str]]:
            missed = []
            for file, changed, name, tests in faults[number :: options.processes]:
                if not is_seen(folders[number], file, changed, tests):
                    missed.append((file, name))
                    print(f"not seen: {file}: {name}", flush=True)
            return missed

        with ThreadPoolExecutor(options.processes) as pool:
            missed = [fault for part in pool.map(share, range(options.processes)) for fault in part]
    print(f"{len(faults) - len(missed)} of {len(faults)} faults seen")


if __name__ == "__main__":
    main()
