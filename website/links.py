"""Links of pages, which GitHub follows from where a file lies, as the site has them."""

import posixpath
import re
from pathlib import PurePosixPath

OUTSIDE = {
    "CHANGELOG.md": "project/changes.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "LICENSE": "project/LICENSE.txt",
    "benchmarks/README.md": "project/benchmarks.md",
    "examples/README.md": "project/examples.md",
    "examples/fields_model/README.md": "project/fields_model.md",
}
"""Files of the repository that lie outside of `docs/`, and where the site has them."""
SAME_AS = {"README.md": "index.md"}
"""What the site says on another page."""
LINK = re.compile(r"(\]\()([^)\s:#]+)((?:#[^)\s]*)?\))")


def placed_links(markdown: str, uri: str) -> str:
    """Return a page whose links lead to where the site has what they name. A link that leads nowhere stays.

    Args:
        uri: the page's place on the site.
    """
    home = home_of(uri).parent

    def placed(found: re.Match[str]) -> str:
        path = posixpath.normpath(str(home / found[2]))
        target = path.removeprefix("docs/") if path.startswith("docs/") else (OUTSIDE | SAME_AS).get(path)
        if target is None:
            return found[0]
        return f"{found[1]}{posixpath.relpath(target, posixpath.dirname(uri) or '.')}{found[3]}"

    return LINK.sub(placed, markdown)


def home_of(uri: str) -> PurePosixPath:
    """Return the file of the repository that is at a place on the site."""
    outside = {site: path for path, site in OUTSIDE.items()}
    return PurePosixPath(outside.get(uri, f"docs/{uri}"))
