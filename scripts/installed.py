"""A virtual environment with rlrun from this checkout and packages of others."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def python_with(packages: list[str], directory: Path) -> Path:
    """Install rlrun and packages into a virtual environment; return its Python. RLRUN_PIP_ARGS: more for pip."""
    python = directory / "bin" / "python"
    if not python.exists():
        venv.create(directory, with_pip=True)
    more = shlex.split(os.environ.get("RLRUN_PIP_ARGS", ""))
    pins = ["-c", str(ROOT / "scripts" / "constraints.txt")] if sys.version_info < (3, 14) else []
    subprocess.run([python, "-m", "pip", "install", "-q", f"{ROOT}[video]", *packages, *pins, *more], check=True)
    return python
