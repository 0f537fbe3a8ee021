"""Pages as a browser shows them: headless Chromium."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

needs_chromium = pytest.mark.skipif(shutil.which("chromium") is None, reason="needs the chromium browser on the PATH")


def opened_in_chromium(html: Path, profile: Path) -> tuple[str, str]:
    """The page after its scripts ran, and what the browser's console said."""
    command = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
        f"--user-data-dir={profile}", "--window-size=1300,2000", "--virtual-time-budget=8000",
        "--dump-dom", html.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, done.stderr
