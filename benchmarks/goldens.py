"""How far is each network from what its reference recorded?

    python benchmarks/goldens.py

It runs the tests of the networks and writes the errors that they noted to `docs/goldens.md`: for each recording the
worst of all its outputs, as max |difference| / max |reference|.
"""

import argparse
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAD = """# Recorded outputs

How far is each network from the outputs that its reference implementation gave for fixed weights and inputs
(`tests/goldens`)? A figure is the worst difference over the largest value of that output. Inner stages are among the
outputs where they were recorded.

- Made by `python benchmarks/goldens.py` on a CPU, in float32. Other machines differ in the last digits.
- Nothing under *fused*: the fused network was compared with the plain one instead
  (`tests/models/test_every_network.py`).
- `depict_*_eps`: the network norms cosines of 0.98 that differ by 7e-4 between classes. float32 alone loses as much: in
  float64 the same network is as far from the recording (`tests/models/test_depict.py`).

| recording | plain | fused |
|---|---|---|
"""


def noted(only: str) -> dict[str, dict[str, float]]:
    """Run the tests; return recording -> form -> worst error."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "tests/models",
            "-q",
            "-k",
            f"recorded and {only}" if only else "recorded",
            f"--junitxml={report}",
            # Of few tests the start of another process would be most.
            *(("-n", "0") if only else ()),
        ]
        subprocess.run(command, cwd=ROOT, check=True)
        for note in ElementTree.parse(report).iter("property"):
            name, form = note.attrib["name"].split()
            found[name][form] = max(found[name].get(form, 0.0), float(note.attrib["value"]))
    return found


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="recordings whose tests have this in their names; prints the table")
    only = parser.parse_args().only
    rows = [
        f"| `{name}` | {errors.get('plain', float('nan')):.1e} | {errors.get('fused', float('nan')):.1e} |"
        for name, errors in sorted(noted(only).items())
    ]
    if only:
        print("\n".join(rows))
        return
    (ROOT / "docs" / "goldens.md").write_text(HEAD + "\n".join(rows).replace("nan", "") + "\n", encoding="utf-8")
    print("docs/goldens.md is written.")


if __name__ == "__main__":
    main()
