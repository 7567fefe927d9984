"""How large an install is, and how long it takes: the core and each extra, each in an empty environment.

    python benchmarks/install_sizes.py                      # all of them: minutes, and some GB that go again
    python benchmarks/install_sizes.py --only core serve,onnx

Megabytes are those of all files that pip writes, without what Python compiles from them. Seconds are those of
`pip install` with the exact versions of `constraints.txt`; after the first one, what was downloaded is in pip's cache.
So the bytes can be compared between machines, and the seconds say what a second install takes. `import pixelwise` and
`pixelwise --help` are tried in each environment.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "install_sizes.json"
TOGETHER = ("serve,onnx", "onnx,geo")
"""Extras that are installed together: a server, and a machine that only predicts."""
LEFT_OUT = ("timm", "test", "dev")
"""timm brings torchvision, whose wheels on PyPI need a GPU build of torch; the others are not for users."""


def sets() -> list[str]:
    """Return what is measured: 'core', each extra, and some together."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return ["core", *(name for name in table["optional-dependencies"] if name not in LEFT_OUT), *TOGETHER]


def installed(extras: str, wheel: Path, folder: Path) -> dict[str, Any]:
    """Install into an environment of its own, try it, and return what it takes."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    before = size_of(folder)
    wanted = str(wheel) if extras == "core" else f"{wheel}[{extras}]"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-compile"]
    command += ["--disable-pip-version-check", "--constraint", str(ROOT / "constraints.txt"), wanted]
    started = time.monotonic()
    subprocess.run(command, check=True)
    seconds, megabytes = time.monotonic() - started, (size_of(folder) - before) / 1e6
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "list", "--format", "json"],
        check=True,
        capture_output=True,
        text=True,
    )
    packages = {row["name"]: row["version"] for row in json.loads(listed.stdout)}
    subprocess.run([str(python), "-c", "import pixelwise"], check=True, cwd=folder)
    helped = [str(python), "-m", "pixelwise", "--help"]
    subprocess.run(helped, check=True, cwd=folder, stdout=subprocess.DEVNULL)
    return {
        "extras": extras,
        "megabytes": round(megabytes, 1),
        "seconds": round(seconds, 1),
        "packages": len(packages),
        "torch": packages.get("torch"),
    }


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder; links count nothing."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def table(rows: list[dict[str, Any]]) -> str:
    """Return the page's table."""
    lines = ["| install | MB | seconds | packages | torch |", "|---|---|---|---|---|"]
    for row in rows:
        name = "`pixelwise`" if row["extras"] == "core" else f"`pixelwise[{row['extras']}]`"
        lines.append(
            f"| {name} | {row['megabytes']:,.0f} | {row['seconds']:.0f} | {row['packages']} | {row['torch'] or ''} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", help="'core', or extras as between the brackets")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the result goes; rows that are there stay")
    parser.add_argument(
        "--table", action="store_true", help="print the table of what was measured, and measure nothing"
    )
    options = parser.parse_args()
    kept = json.loads(options.json.read_text(encoding="utf-8"))["rows"] if options.json.exists() else []
    rows = {row["extras"]: row for row in kept}
    if not options.table:
        with tempfile.TemporaryDirectory() as name:
            build = [sys.executable, "-m", "build", "--wheel", "--outdir", f"{name}/dist", str(ROOT)]
            subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
            wheel = next(Path(name, "dist").glob("*.whl"))
            for number, extras in enumerate(options.only or sets()):
                with tempfile.TemporaryDirectory() as folder:
                    rows[extras] = installed(extras, wheel, Path(folder) / str(number))
                print(json.dumps(rows[extras]), flush=True)
                order = [*sets(), *rows]
                found = {"python": platform.python_version(), "system": platform.platform()}
                found["rows"] = sorted(rows.values(), key=lambda row: order.index(row["extras"]))
                options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(list(rows.values())))


if __name__ == "__main__":
    main()
