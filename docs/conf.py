"""Sphinx: `make docs` builds the site into docs/_build/html, with warnings as errors."""

import shutil
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(DOCS)]

from reference_pages import write_reference  # noqa: E402

from archsim import __version__  # noqa: E402

GENERATED = DOCS / "_generated"

project = "archsim"
author = "the archsim developers"
copyright = "the archsim developers"
release = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "images"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing", "misc.highlighting_failure"]  # links to files beside docs/; our YAML fences
nb_execution_mode = "off"  # the tests execute the notebooks, and the examples of every page

autodoc_member_order = "bysource"
autodoc_typehints = "description"
napoleon_google_docstring = True

html_theme = "furo"
html_title = "archsim"


def prepare(_app: object) -> None:
    """Everything that is derived: the reference from the models and the metric table, the notebooks."""
    shutil.rmtree(GENERATED, ignore_errors=True)
    write_reference(GENERATED)
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        shutil.copy(notebook, GENERATED)


def setup(app):  # type: ignore[no-untyped-def]
    app.connect("config-inited", lambda app, _config: prepare(app))
