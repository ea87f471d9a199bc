"""How Sphinx makes the site and the manual pages: ``make docs``, ``make man``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from director.version import VERSION

project = "txdirector"
author = "The txdirector developers"
copyright = author  # noqa: A001 - the name is Sphinx's
version = release = VERSION
language = "en"
smartquotes = False  # two hyphens are an option, not a dash

extensions = ["myst_parser", "docs._ext.generated"]
exclude_patterns = ["_ext"]
myst_enable_extensions = ["deflist", "attrs_inline"]
myst_heading_anchors = 4  # links to headings, as on the project's pages

html_theme = "furo"
html_title = f"txdirector {VERSION}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
pygments_style = "friendly"

man_pages = [
    ("reference/commands/director", "director", "a TCP balancer of a director cluster", author, 1),
    ("reference/commands/directorctl", "directorctl", "see and steer a running director", author, 1),
    ("reference/commands/director-agent", "director-agent", "report a host's load to every director", author, 1),
    ("reference/configuration", "director.toml", "a director's configuration", author, 5),
]
man_show_urls = False
