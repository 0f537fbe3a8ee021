"""One look for every figure: colours that colour-blind readers can tell apart, dark text, plain words.

Colours are from Okabe and Ito's palette (jfly.uni-koeln.de/color) with one indigo from Paul Tol's
for the eighth; neighbours in a stack also differ in lightness.
"""

from __future__ import annotations

INK, MUTED, GRID, PAPER = "#1b1f24", "#57606a", "#e4e7eb", "#ffffff"
ACCENT = "#0072B2"
PEAK = "#B3261E"

CAUSE_COLOURS = {
    "transfer": "#0072B2",
    "compute": "#009E73",
    "row": "#D55E00",
    "turnaround": "#CC79A7",
    "refresh": "#E69F00",
    "noc": "#882255",
    "pim": "#117733",
    "tier": "#7A4B00",
    "fill": "#56B4E9",
    "link": "#332288",
    "launch": "#8A9099",
}
CAUSE_LABELS = {
    "transfer": "HBM transfer",
    "compute": "compute",
    "row": "row activation",
    "turnaround": "bus turnaround",
    "refresh": "refresh",
    "noc": "on-chip network",
    "pim": "PIM",
    "tier": "other tier",
    "fill": "pipeline fill",
    "link": "collective",
    "launch": "launch",
}


def cause_label(cause: str, memory: str = "HBM") -> str:
    """A cause in a legend's words, by the name of the main memory."""
    return CAUSE_LABELS[cause].replace("HBM", memory)


def energy_label(component: str, memory: str = "HBM") -> str:
    """A component of energy in words, by the name of the main memory: "hbm_read" of an SRAM is "SRAM read"."""
    part, _, what = component.replace(".", "_").partition("_")
    what = "I/O" if what == "io" else what
    known = {"hbm": f"{memory} {what}", "pim": f"PIM {what}", "tier": f"{what} (tier)"}
    return known[part] if what and part in known else component


def of_all_devices(devices: int) -> str:
    """Whose energy it is: "all 8 devices", "one device"."""
    return f"all {devices} devices" if devices > 1 else "one device"


TILE_COLOURS = {
    "busy": "#0072B2",
    "refresh": "#E69F00",
    "turnaround": "#CC79A7",
    "row": "#D55E00",
    "idle": "#D5D9DE",
}
ROW_COLOURS = {"hits": "#0072B2", "misses": "#56B4E9", "conflicts": "#D55E00"}
TILE_LABELS = {
    "busy": "moving data",
    "refresh": "refresh",
    "turnaround": "turnaround",
    "row": "waiting for rows",
    "idle": "idle",
}
ROW_LABELS = {"hits": "row hits", "misses": "row misses", "conflicts": "row conflicts"}
READ_COLOUR, WRITE_COLOUR = "#0072B2", "#E69F00"
PHASE_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#332288")
TIER_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#332288")
ROOF_DASHES = (("dash", (6, 4)), ("dot", (1.5, 2.5)), ("dashdot", (6, 3, 1.5, 3)), ("longdash", (11, 4)))
"""Of memories beside the main one: plotly's names, and matplotlib's lengths of strokes and gaps."""
PHASE_SYMBOLS = ("diamond", "circle", "square", "triangle-up", "star")
PHASE_MARKERS = ("D", "o", "s", "^", "*")


def phase_colour(index: int) -> str:
    """The colour of the phase at `index`."""
    return PHASE_COLOURS[index % len(PHASE_COLOURS)]


def text_on(colour: str) -> str:
    """Black or white, whichever reads better on `colour` ("#rrggbb"), by relative luminance (WCAG 2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#ffffff" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "#000000"


def tier_colour(index: int) -> str:
    """The colour of the memory at `index`, the main one first."""
    return TIER_COLOURS[index % len(TIER_COLOURS)]


def roof_dash(beside: int) -> tuple[str, tuple[float, ...]]:
    """The dashes of the roof of a memory beside the main one, from 1."""
    return ROOF_DASHES[(beside - 1) % len(ROOF_DASHES)]
