"""Makes the pictures of the documentation, and the terminal output shown in README.md, from a real run.

    python docs/images/make.py

It runs experiments/llama3_70b_h200x8. The picture of the report needs chromium; without it that one stays as it is.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.image

import archsim

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "images"
README = ROOT / "README.md"
EXPERIMENT = "experiments/llama3_70b_h200x8/experiment.yaml"
OUT = "runs/llama3_70b_h200x8"
BEGIN, END = "<!-- output: begin -->\n", "<!-- output: end -->"
PAGE_WIDTH, PAGE_HEIGHT = 1240, 2156  # pixels: the head of the page, down to the end of "Where the time goes"
DPI = 100


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / OUT
        replace_output(terminal_output(directory))
        figure = archsim.open_run(directory).plot.roofline()
        figure.savefig(IMAGES / "roofline.png", dpi=DPI, metadata={"Software": None})
        photograph(directory / "report.html", IMAGES / "report.png", Path(scratch))


def terminal_output(directory: Path) -> str:
    """What `archsim run` prints, as it stands in a terminal 80 columns wide."""
    command = [str(Path(sys.executable).with_name("archsim")), "run", EXPERIMENT, "--out", str(directory)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    printed, written, _ = done.stdout.partition("Written to")  # folded where the path ends
    lines = [line.rstrip() for line in printed.splitlines()]
    closing = f"{written} {OUT}: open report.html, or timeline.json in ui.perfetto.dev"
    return "\n".join([*lines, closing]).strip("\n")


def replace_output(printed: str) -> None:
    """Put the output between the marks of README.md."""
    head, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, _, tail = rest.partition(END)
    README.write_text(f"{head}{BEGIN}```text\n{printed}\n```\n{END}{tail}", encoding="utf-8")


def photograph(page: Path, picture: Path, scratch: Path) -> None:
    """The head of an HTML page as a picture, if chromium is there."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        print(f"{picture.name} stays as it is: there is no chromium", file=sys.stderr)
        return
    whole = scratch / "page.png"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=15000"]
    size = f"--window-size={PAGE_WIDTH},{PAGE_HEIGHT}"
    subprocess.run(
        [chromium, *flags, size, f"--screenshot={whole}", page.as_uri()], check=True, capture_output=True, timeout=120
    )
    pixels = matplotlib.image.imread(whole)
    matplotlib.image.imsave(picture, pixels[:PAGE_HEIGHT], metadata={"Software": None})


if __name__ == "__main__":
    main()
