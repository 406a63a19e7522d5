"""Configuration of Sphinx, for ``make docs``."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "kinto-attachment"
release = version = version_of("kinto-attachment")

extensions = ["settings_list", "file_links", "sphinx_copybutton"]
# A broken link or cross-reference is a warning, and `make docs` fails on warnings.
nitpicky = True
highlight_language = "none"
copybutton_exclude = ".linenos, .gp, .output"
copybutton_selector = "div:not(.output) > div.highlight > pre"

html_theme = "furo"
html_title = f"{project} {release}"
html_copy_source = False
html_show_sphinx = html_show_copyright = False
templates_path = []
exclude_patterns = ["_build"]
