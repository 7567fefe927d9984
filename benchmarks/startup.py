"""Milliseconds that `import pixelwise` and `pixelwise --help` take beyond a bare interpreter.

    python benchmarks/startup.py [--rounds 25]

Each runs in a process of its own, and they take turns. A figure is the median of the rounds' differences.
"""

import argparse
import statistics
import subprocess
import sys
import time

BARE = "pass"
WAYS = {
    "import pixelwise": "import pixelwise",
    "pixelwise --help": "import sys; sys.argv = ['pixelwise', '--help']; from pixelwise.cli import main; main()",
}


def milliseconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    rounds = parser.parse_args().rounds
    taken: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(rounds):
        bare = milliseconds(BARE)
        for name, code in WAYS.items():
            taken[name].append(milliseconds(code) - bare)
    for name, differences in taken.items():
        print(f"{name}: {statistics.median(differences):.0f} ms over a bare interpreter (median of {rounds})")


if __name__ == "__main__":
    main()
