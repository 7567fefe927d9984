"""What MkDocs is told besides mkdocs.yml: pages made while it builds, and links that lead out of `docs/`."""

import posixpath
import re
from pathlib import Path, PurePosixPath

import reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]

OUTSIDE = {
    "CHANGELOG.md": "project/changes.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "LICENSE": "project/LICENSE.txt",
    "benchmarks/README.md": "project/benchmarks.md",
    "examples/README.md": "project/examples.md",
}
"""Files of the repository that lie outside of `docs/`, and where the site has them."""
SAME_AS = {"README.md": "docs/index.md"}
"""What the site says on another page."""
BOOST = {"start/": 3.0, "howto/": 2.0, "tutorials/": 1.5, "reference/keys": 0.7, "project/": 0.3, "provenance": 0.3}
"""How much more a page counts in the search, by the beginning of its name."""
COMMAND = re.compile(r"^```\n(?=(?:pixelwise|pip|python|make|torchrun|git|for) )", re.MULTILINE)
LINK = re.compile(r"(\]\()([^)\s:#]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from the code, and those that lie elsewhere in the repository."""
    for uri, content in reference.pages().items():
        files.append(File.generated(config, uri, content=content))
    for path, uri in OUTSIDE.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to where the site has what they name, and colour commands."""
    uri = page.file.src_uri
    for begin, boost in BOOST.items():
        if uri.startswith(begin):
            page.meta.setdefault("search", {"boost": boost})
    return COMMAND.sub("```sh\n", placed_links(markdown, uri))


def placed_links(markdown: str, uri: str) -> str:
    """Return a page with the links that GitHub follows from where its file lies turned into those of the site.

    Args:
        uri: the page's place on the site.
    """
    homes = {site: path for path, site in OUTSIDE.items()}
    home = PurePosixPath(homes.get(uri, f"docs/{uri}")).parent
    sites = OUTSIDE | {path: OUTSIDE.get(same, same.removeprefix("docs/")) for path, same in SAME_AS.items()}

    def placed(found: re.Match[str]) -> str:
        path = posixpath.normpath(str(home / found[2]))
        if path.startswith("docs/"):
            target = path.removeprefix("docs/")
        elif path in sites:
            target = sites[path]
        else:
            # Strict mode says that it leads nowhere.
            return found[0]
        return f"{found[1]}{posixpath.relpath(target, posixpath.dirname(uri) or '.')}{found[3]}"

    return LINK.sub(placed, markdown)
