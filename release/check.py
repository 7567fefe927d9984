"""Make the files of a release, and check them: the same bytes twice, what is in them, what they rest on.

    make release-check        # or: python release/check.py --output dist

1. The sdist is made from what git tracks, and the wheel from the sdist. Both are made twice, in different folders and
   at different times, and must have the same bytes.
2. The sdist holds every tracked file. The wheel holds every file of `src/pixelwise` and its licence, and no other.
3. `twine check --strict` and `check-wheel-contents` find nothing.
4. CITATION.cff names the same version.
5. Everything that an extra installs has a licence of `release/licences.toml` (pip-licenses).
6. `sbom.cdx.json` lists all of it, with versions and licences (cyclonedx-py).

It needs no network: the packages are those of the environment that runs it (the extra `dev`).
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
NOT_INSTALLED_BY_USERS = ("test", "dev")
"""Extras for those who work on pixelwise; what they bring goes to nobody else."""


def tracked() -> list[str]:
    """Return the files that git tracks and that are there."""
    names = _said(["git", "ls-files", "-z"]).split("\0")
    return sorted(name for name in names if name and (ROOT / name).is_file())


def build(names: Sequence[str], folder: Path, moment: str) -> dict[str, Path]:
    """Make both files from a copy of the tracked files.

    Args:
        moment: seconds since 1970, the time that the files in them bear.
    """
    for name in names:
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "tree" / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), str(folder / "tree")]
    _said(command, SOURCE_DATE_EPOCH=moment)
    made = {path.suffix: path for path in (folder / "dist").iterdir()}
    return {"sdist": made[".gz"], "wheel": made[".whl"]}


def wrong_contents(names: Sequence[str], sdist: Path, wheel: Path) -> list[str]:
    """Return what is missing in the files, or too much."""
    with tarfile.open(sdist) as archive:
        # The first part is the folder pixelwise-VERSION.
        packed = {member.name.partition("/")[2] for member in archive if member.isfile()}
    with zipfile.ZipFile(wheel) as archive:
        installed = {name for name in archive.namelist() if not name.endswith("/")}
    record = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
    meant = {name.removeprefix("src/") for name in names if name.startswith("src/pixelwise/")}
    meant |= {f"{record}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")}
    found = [*_apart("the sdist", {*names, "PKG-INFO"}, packed), *_apart("the wheel", meant, installed)]
    return found


def _apart(what: str, meant: set[str], packed: set[str]) -> Iterator[str]:
    if missing := sorted(meant - packed):
        yield f"{what} lacks {', '.join(missing[:10])}"
    if more := sorted(packed - meant):
        yield f"{what} has {', '.join(more[:10])}, which nobody wants"


def wrong_versions(wheel: Path) -> list[str]:
    """Return the files that name another version than the wheel's."""
    version = wheel.name.split("-")[1]
    cited = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    return [] if cited and cited[1] == version else [f"CITATION.cff has another version than {version}"]


def rested_on() -> set[str]:
    """Return all packages of the environment that pixelwise needs, with the extras for users, directly or not."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {"": project["dependencies"], **project["optional-dependencies"]}
    lines = [line for extra, those in extras.items() if extra not in NOT_INSTALLED_BY_USERS for line in those]
    waiting, found = list(_needed(lines, "")), set()
    while waiting:
        package, extra = waiting.pop()
        if (package, extra) in found or package == "pixelwise":
            continue
        try:
            waiting += _needed(distribution(package).requires or [], extra)
            found.add((package, extra))
        except PackageNotFoundError:
            # An extra that is not installed here.
            continue
    return {package for package, _ in found}


def _needed(lines: Sequence[str], extra: str) -> Iterator[tuple[str, str]]:
    """Return packages and their extras, of those lines that hold for this machine and an extra."""
    for requirement in map(Requirement, lines):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield from ((canonicalize_name(requirement.name), each) for each in ("", *requirement.extras))


def wrong_licences(packages: set[str]) -> list[str]:
    """Return the packages whose licence is not on the list."""
    table = tomllib.loads((ROOT / "release" / "licences.toml").read_text(encoding="utf-8"))
    command = [
        sys.executable,
        "-m",
        "piplicenses",
        "--from=mixed",
        "--with-system",
        "--format=json",
        "--packages",
        *sorted(packages),
    ]
    found = {canonicalize_name(row["Name"]): row["License"] for row in json.loads(_said(command))}
    stated = table["stated_elsewhere"]
    wrong = [f"{name}: {licence}" for name, licence in found.items() if licence not in table["allowed"]]
    wrong = [each for each in wrong if each.partition(":")[0] not in stated]
    return wrong + [f"{name}: stated nowhere" for name in sorted(packages - found.keys())]


def write_bill(path: Path, packages: set[str]) -> int:
    """Write the bill of materials: those packages of the environment, without what only developers have.

    Returns:
        how many there are.
    """
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--pyproject", str(ROOT / "pyproject.toml")]
    bill = json.loads(
        _said([*command, "--output-reproducible", "--no-validate", "--of", "JSON", "-o", "-", sys.executable])
    )
    bill["components"] = [each for each in bill["components"] if canonicalize_name(each["name"]) in packages]
    kept = {each["bom-ref"] for each in (*bill["components"], bill["metadata"]["component"])}
    bill["dependencies"] = [
        {**each, "dependsOn": [other for other in each.get("dependsOn", []) if other in kept]}
        for each in bill["dependencies"]
        if each["ref"] in kept
    ]
    path.write_text(json.dumps(bill, indent=1) + "\n", encoding="utf-8")
    return len(bill["components"])


def _said(command: Sequence[str], **environment: str) -> str:
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, text=True, capture_output=True)
    if done.returncode:
        sys.exit(f"{' '.join(command[:6])} fails:\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> None:
    """Make and check; leave with 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="where the files go")
    output = parser.parse_args().output
    names = tracked()
    moment = _said(["git", "log", "-1", "--format=%ct"]).strip()
    wrong = []
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        first, second = build(names, Path(one), moment), build(names, Path(other), moment)
        wrong += [f"two {kind}s differ" for kind in first if first[kind].read_bytes() != second[kind].read_bytes()]
        wrong += wrong_contents(names, first["sdist"], first["wheel"])
        wrong += wrong_versions(first["wheel"])
        _said([sys.executable, "-m", "twine", "check", "--strict", *map(str, first.values())])
        _said([str(Path(sys.executable).with_name("check-wheel-contents")), str(first["wheel"])])
        output.mkdir(parents=True, exist_ok=True)
        for kind, path in first.items():
            shutil.copy(path, output)
            print(f"{kind}: {path.name}, {path.stat().st_size / 1e6:.1f} MB")
    packages = rested_on()
    wrong += wrong_licences(packages)
    print(f"licences: {len(packages)} packages that users may install")
    print(f"sbom.cdx.json: {write_bill(output / 'sbom.cdx.json', packages)} of them, with versions and licences")
    if wrong:
        sys.exit("Not ready for a release:\n  " + "\n  ".join(wrong))


if __name__ == "__main__":
    main()
