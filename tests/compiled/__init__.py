"""Icebroker as the container has it: what decides is compiled by mypyc."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = (
    "turn", "signaling", "config", "cli", "icebroker.py", "pyproject.toml", "README.md", "LICENSE",
)  # fmt: skip


def build(folder: Path) -> Path:
    """Compile this checkout, outside of it; gives where the packages are.

    :raises RuntimeError: it cannot be built; the text is the build's.
    """
    source, installed = folder / "source", folder / "compiled"
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.so")
            shutil.copytree(ROOT / name, source / name, ignore=ignored)
        else:
            shutil.copy2(ROOT / name, source)
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
        "--no-index", "--no-deps", "--no-build-isolation", "--target", str(installed), str(source),
    ]  # fmt: skip
    environment = os.environ | {"HATCH_BUILD_HOOK_ENABLE_MYPYC": "1"}
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return installed
