"""Follows tutorials at the settings that they show, and keeps their pictures.

    python website/pictures.py photos satellite

A page's commands write a picture, and the page shows the one of that name beside it. This takes minutes for each page.
The tests follow the same pages at tiny settings, and keep nothing.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TUTORIALS = ROOT / "docs" / "tutorials"


def main() -> None:
    """Follow the pages that are named."""
    sys.path[:0] = [str(ROOT / "tests" / "small"), str(ROOT / "website")]
    from reader import Reader

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    pages = sorted(page.stem for page in TUTORIALS.glob("*.md") if page.stem != "index")
    parser.add_argument("pages", nargs="*", metavar="PAGE", help=f"Default: all of {', '.join(pages)}.")
    for page in parser.parse_args().pages or pages:
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(ROOT / "examples", Path(folder, "examples"))
            Reader(Path(folder), tiny=False).follow(TUTORIALS / f"{page}.md")
            for picture in sorted(Path(folder).glob("*.webp")):
                shutil.copy(picture, TUTORIALS)
                print(f"{picture.name}: {picture.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
