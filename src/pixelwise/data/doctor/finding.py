"""What an examination gives: findings, and what the data holds."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pixelwise.data.doctor.codes import CODES, Severity, severity_of
from pixelwise.data.doctor.sample import Sample
from pixelwise.data.stats import BandStatistics
from pixelwise.geo.raster import Window
from pixelwise.labels import Classes


@dataclass(frozen=True)
class Spot:
    """Where a picture of a finding is cut out: the page draws it when it is written."""

    image: Path | None
    mask: Path | None = None
    window: Window | None = None
    """None: the whole image."""
    other: Path | None = None
    """A second image to look at, such as the copy."""


@dataclass(frozen=True)
class Finding:
    """One mistake, or one thing that people seldom mean."""

    code: str
    """One of `CODES`."""
    file: str
    """The file that it is about; the configuration's key where it is about none."""
    message: str
    """What is wrong, where: sentences that name the file and the value."""
    fix: str = ""
    """What to do; by default what `CODES` says."""
    value: object = None
    """The value in question, as JSON can hold it: mask values with their counts, sizes, shares."""
    picture: Spot | None = None
    others: tuple[str, ...] = ()
    """Further files that take part, such as the image of a mask."""

    def __post_init__(self) -> None:
        if not self.fix:
            object.__setattr__(self, "fix", CODES[self.code].fix)

    @property
    def severity(self) -> Severity:
        """``error`` or ``warning``."""
        return severity_of(self.code)

    def to_dict(self) -> dict:
        """Return the finding as JSON can hold it."""
        return {
            "code": self.code,
            "severity": self.severity,
            "what": CODES[self.code].what,
            "file": self.file,
            "others": list(self.others),
            "message": self.message,
            "fix": self.fix,
            "value": self.value,
        }


@dataclass(frozen=True)
class PartSummary:
    """What one part of the split holds."""

    scenes: int
    class_pixels: tuple[int, ...]
    ignored: int
    statistics: BandStatistics


@dataclass(frozen=True)
class Examination:
    """Everything that was found."""

    findings: tuple[Finding, ...]
    classes: Classes | None
    """None where the configuration's classes do not work."""
    samples: Sequence[Sample] = ()
    parts: dict[str, PartSummary] = field(default_factory=dict)
    objects: dict[str, list[int]] = field(default_factory=dict)
    """Class -> pixels in objects of 1, 2-3, 4-7, 8-15 ... pixels."""
    notes: tuple[str, ...] = ()
    """What was left out, such as a check whose package is not installed."""
    read: int = 0
    """Images that were read now; the facts of the others were known."""

    @property
    def errors(self) -> list[Finding]:
        """The findings that stop training."""
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """The others."""
        return [finding for finding in self.findings if finding.severity == "warning"]


def paragraphs(findings: Sequence[Finding], shown: int = 300) -> list[str]:
    """Return a paragraph for each code: what is wrong with its first file, the fix, and the other files.

    Mistakes in the configuration have one each.
    """
    kinds: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        apart = finding.message if finding.file.startswith("[") else ""
        kinds.setdefault((finding.code, apart), []).append(finding)
    return [_paragraph(each, shown) for each in kinds.values()]


def _paragraph(findings: list[Finding], shown: int) -> str:
    first, others = findings[0], findings[1:]
    said = f"{first.message} {first.fix}".strip()
    if not others:
        return said
    more = f" and {len(others) - shown} more" if len(others) > shown else ""
    return f"{said} The same is wrong with {len(others)} more: {', '.join(f.file for f in others[:shown])}{more}."
