"""How Sphinx builds the site: `make docs`. No network, and a warning is an error."""

import re
import sys
from pathlib import Path

from angels_share import __version__

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "Angel's Share"
author = "the contributors to Angel's Share"
copyright = author  # noqa: A001  (Sphinx's name for it)
release = version = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "from_the_commands",
]
exclude_patterns = ["_build", "_ext", "first-steps"]
nitpicky = False  # torch's and transformers' inventories are on the network

myst_heading_anchors = 3
default_role = "code"  # single backticks in docstrings
# Notebooks are executed by a slow test, so that a build takes seconds.
nb_execution_mode = "off"

autoclass_content = "both"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# `Attributes:` of a dataclass become fields of its description, not a second entry each.
napoleon_use_ivar = True

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = f"Angel's Share {release}"
html_show_copyright = False
html_copy_source = False

# Files at the root are pages of the site, so their links lead there; on GitHub they are files.
_PAGES = {
    "results/README": "measurements",
    "CONTRIBUTING": "contributing",
    "CHANGELOG": "changelog",
    "RELEASING": "releasing",
    "SECURITY": "security",
}
_LINK = re.compile(rf"\]\((?:\.\./)*({'|'.join(_PAGES)})\.md(#[\w-]+)?\)")

# Published results are files of the repository alone.
_RESULT = re.compile(r"\[([^\]]+)\]\(((?:tiny|minilm|plan-)[^)]*)\)")


def _to_pages(_app, _name, text):
    text[0] = _LINK.sub(lambda link: f"](/{_PAGES[link[1]]}.md{link[2] or ''})", text[0])
    text[0] = text[0].replace("](docs/", "](/")
    text[0] = _RESULT.sub(r"\1 (`results/\2`)", text[0])


def setup(app):
    """Let links to the files at the root lead to their pages."""
    app.connect("source-read", _to_pages)
    app.connect("include-read", lambda app, path, _name, text: _to_pages(app, path, text))
