"""What MkDocs is told besides mkdocs.yml: pages made while it builds, and links that lead out of `docs/`."""

import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))

import reference
from links import OUTSIDE, placed_links

ROOT = Path(__file__).parents[1]
BOOST = {"start/": 2.5, "howto/": 2.0, "tutorials/": 1.5, "errors": 1.5, "project/": 0.3, "provenance": 0.3}
"""How much more a page counts in the search, by the beginning of its name."""
COMMAND = re.compile(r"^```\n(?=(?:pixelwise|pip|python|make|torchrun|git|for) )", re.MULTILINE)
"""The beginning of a block of commands that says no language."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from the code, and those that lie elsewhere in the repository."""
    for uri, content in reference.pages().items():
        files.append(File.generated(config, uri, content=content))
    for path, uri in OUTSIDE.items():
        if (ROOT / path).is_file():  # if not, strict mode names the links that lead to it
            files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to where the site has what they name, colour commands, and rank the page for the search."""
    uri = page.file.src_uri
    for begin, boost in BOOST.items():
        if uri.startswith(begin):
            page.meta.setdefault("search", {"boost": boost})
    return COMMAND.sub("```sh\n", placed_links(markdown, uri))
