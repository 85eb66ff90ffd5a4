"""The wheel works by itself: it carries conf/ and needs nothing of the checkout."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(*args: str, cwd: Path, **env: str) -> str:
    """Run `python ARGS` and give its stdout."""
    done = subprocess.run(
        [sys.executable, *args], cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_installed_wheel_finds_its_config(tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    quiet = ("-q", "--disable-pip-version-check", "--no-deps")
    run("-m", "pip", "wheel", *quiet, "--no-build-isolation", "-w", str(tmp_path), str(ROOT), cwd=elsewhere)
    (wheel,) = tmp_path.glob("rlrun-*.whl")
    run("-m", "pip", "install", *quiet, "--target", str(site), str(wheel), cwd=elsewhere)

    installed = {path.name for path in site.iterdir() if path.suffix != ".dist-info"}
    assert installed == {"rl_runner", "hydra_plugins", "bin"}
    config = run("-m", "rl_runner", "train", "--cfg", "job", cwd=elsewhere, PYTHONPATH=str(site))
    assert "total_steps:" in config
    assert not any(elsewhere.iterdir())  # looking at the config leaves nothing behind
