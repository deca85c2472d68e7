"""The commands of the README, for every system: `python tasks.py demo` and `python tasks.py test`.

Each makes its own environment in `.venv` (once), with the pinned versions of `requirements/`, and runs in it.
Set TORCH_INDEX_URL to fetch another build of torch, for instance one without CUDA.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
DEMO_PROMPTS = ["a red apple", "a cat", "a ghost", "soap bubbles", "fire", "a glass of wine", "a rainbow", "a cloud"]
DEMO_SETS = ["a red apple on a beach", "a cat in a forest", "a rocket in space", "a ghost at night"]
DEMO_SCENE = "a yellow umbrella in a street at night"
SET_WEIGHTS = ROOT / "lib_layerdiffuse/demo_model/layer_demo_joint.safetensors"
# each file's tests in one process; in their order, as the files of few tests, which would come last, are slow ones
ALL_TESTS = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
PYRIGHT = ["-m", "pyright", "--pythonpath", str(PYTHON)]
PIP = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]


def run(*arguments: str) -> None:
    """Run the environment's Python in the project's folder; a failure ends this program with the same code."""
    code = subprocess.run([str(PYTHON), *arguments], cwd=ROOT, check=False).returncode
    if code:
        raise SystemExit(code)


def prepare(requirements: str) -> None:
    """Make `.venv` and install `requirements`, unless exactly that was done before."""
    torch_file, file, ldm_file = (ROOT / "requirements" / name for name in ("torch.txt", requirements, "ldm.txt"))
    wanted = hashlib.sha256(torch_file.read_bytes() + file.read_bytes() + ldm_file.read_bytes()).hexdigest()
    stamp = ENVIRONMENT / f"installed-{requirements}"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    if sys.version_info < (3, 10):
        raise SystemExit(f"got Python {sys.version.split()[0]}; expected 3.10 or newer. Install one and try again.")
    print(f"Installing {requirements} into {ENVIRONMENT.name} (once; this takes some minutes) ...", flush=True)
    if not PYTHON.exists():
        venv.create(ENVIRONMENT, with_pip=True)
    # torch first, so that nothing else chooses another build of it
    index = ["--index-url", os.environ["TORCH_INDEX_URL"]] if os.environ.get("TORCH_INDEX_URL") else []
    run(*PIP, *index, "-r", str(torch_file))
    run(*PIP, "-r", str(file))
    if requirements == "test.txt":  # the original UNet's code; what it asks for is old, and not needed for that
        run(*PIP, "--no-deps", "-r", str(ldm_file))
    stamp.write_text(wanted)


def demo(arguments: list[str]) -> None:
    """Paint transparent pictures from prompts into `out/`, sets of layers, and one set as a layered file too."""
    prepare("demo.txt")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # a little slower alone, three times as quick beside others
    prompts = [] if arguments and not arguments[0].startswith("-") else DEMO_PROMPTS
    generate = ("-m", "lib_layerdiffuse", "generate")
    run(*generate, *prompts, *(arguments or ["-n", "2", "--seed", "1", "--out", "out"]))
    if not arguments and SET_WEIGHTS.is_file():
        run(*generate, *DEMO_SETS, "--chain", "joint", "-n", "2", "--seed", "1", "--out", "out/sets")
        layered = ("--format", "psd", "--recomposite")
        run(*generate, DEMO_SCENE, "--chain", "joint", "-n", "1", "--seed", "1", *layered, "--out", "out/layers")


def types(arguments: list[str]) -> None:
    """Check the types; by the node that is installed with pyright, as a system's own may be too old."""
    prepare("test.txt")
    os.environ.setdefault("PYRIGHT_PYTHON_GLOBAL_NODE", "0")
    run(*PYRIGHT, *arguments)


def asked_for(arguments: list[str]) -> list[str]:
    """All tests with these options, or the named ones alone."""
    return [*ALL_TESTS, *arguments] if all(word.startswith("--") for word in arguments) else arguments


def test(arguments: list[str]) -> None:
    """Run ruff, then pyright beside the tests, in two processes of one thread each: many only wait for each other."""
    prepare("test.txt")
    run("-m", "ruff", "check", ".")
    run("-m", "ruff", "format", "--check", ".")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("PYRIGHT_PYTHON_GLOBAL_NODE", "0")
    command, pipe, same = [str(PYTHON), *PYRIGHT], subprocess.PIPE, subprocess.STDOUT
    with subprocess.Popen(command, cwd=ROOT, text=True, encoding="utf-8", stdout=pipe, stderr=same) as checking:
        try:
            run("-m", "pytest", *asked_for(arguments))
        finally:
            print(f"types: {checking.communicate()[0]}", flush=True)
    if checking.returncode:
        raise SystemExit(checking.returncode)


def coverage(arguments: list[str]) -> None:
    """Run the tests and print which lines and branches they leave out; pyproject.toml says how many may be."""
    prepare("test.txt")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    report = ["--cov", "--cov-report", "term-missing:skip-covered"]
    run("-m", "pytest", *report, *asked_for(arguments))


def page(arguments: list[str]) -> None:
    """Open the standalone page."""
    prepare("demo.txt")
    run("-m", "lib_layerdiffuse", "page", *arguments)


def main() -> None:
    """Choose the task by the first argument."""
    tasks = {"demo": demo, "test": test, "types": types, "coverage": coverage, "page": page}
    if len(sys.argv) < 2 or sys.argv[1] not in tasks:
        raise SystemExit(f"usage: python tasks.py {'|'.join(tasks)} [arguments]")
    tasks[sys.argv[1]](sys.argv[2:])


if __name__ == "__main__":
    main()
