"""What each network costs for one image, as `pixelwise models` shows it: writes src/pixelwise/hub/costs.json.

    python benchmarks/costs.py

Run it when a network is new or changes. It takes about a minute; tests/hub/test_catalog.py finds what is out of date.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import pixelwise.hub
from pixelwise.hub.catalog import BANDS, CLASSES, SIZE, count
from pixelwise.models import list_models


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list_models(), metavar="NETWORK")
    parser.add_argument("--output", type=Path, default=Path(pixelwise.hub.__file__).with_name("costs.json"))
    arguments = parser.parse_args()
    counted = {name: asdict(count(name, classes=CLASSES, bands=BANDS, size=SIZE)) for name in arguments.only}
    lines = [f"{json.dumps(name)}: {json.dumps(counts)}" for name, counts in counted.items()]
    arguments.output.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{arguments.output} is written.")


if __name__ == "__main__":
    main()
