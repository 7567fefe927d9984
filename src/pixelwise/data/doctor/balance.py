"""Which classes there are, how many pixels they have, and how large their objects are."""

from collections.abc import Sequence

from pixelwise.data.doctor.facts import class_counts
from pixelwise.data.doctor.finding import Finding, PartSummary, Spot
from pixelwise.data.doctor.sample import Sample
from pixelwise.data.doctor.thresholds import LIMITS
from pixelwise.labels import Classes


def check_classes(parts: dict[str, PartSummary], classes: Classes) -> list[Finding]:
    """Find classes that are nowhere, in no training scene, or very rare."""
    totals = [sum(each) for each in zip(*(part.class_pixels for part in parts.values()), strict=True)]
    training = parts.get("training")
    if training is None or not training.scenes:
        return []
    for name, part in parts.items():
        if part.scenes and not sum(part.class_pixels):
            said = f"No pixel of the {name} scenes has a class: all are ignored or have no data."
            return [Finding("PW141", "[data].ignore", said, value=part.ignored)]
    present = [i for i, count in enumerate(training.class_pixels) if count]
    if len(present) == 1:
        said = (
            f"All labelled pixels of the training scenes are of the class {classes.names[present[0]]!r}, so there is "
            "nothing to learn."
        )
        return [Finding("PW142", "[data].classes", said, value=classes.names[present[0]])]
    findings = []
    labelled = max(1, sum(training.class_pixels))
    for name, count, everywhere in zip(classes.names, training.class_pixels, totals, strict=True):
        if not everywhere:
            said = f"No pixel is of the class {name!r}, so a network cannot learn it here."
            fix = "Check [data].values, and that the masks hold what you expect; or drop the class."
            findings.append(Finding("PW140", "[data].classes", said, fix, name))
        elif not count:
            said = f"No training pixel is of the class {name!r}, but other parts hold {everywhere:,}."
            findings.append(Finding("PW202", "[data].split", said, value=name))
        elif count / labelled < LIMITS.rare_class:
            said = f"The class {name!r} has {count / labelled:.3%} of the labelled training pixels ({count:,})."
            value = {"class": name, "share": count / labelled}
            findings.append(Finding("PW201", "[data].classes", said, value=value))
    return findings


def check_objects(objects: dict[str, list[int]], stride: int | None) -> list[Finding]:
    """Find classes most of whose pixels are in objects smaller than a cell of the network.

    Args:
        objects: class -> pixels in objects of 1, 2-3, 4-7 ... pixels.
        stride: of the network's logits; None: not known.
    """
    if stride is None or stride < 2:
        return []
    bins = (stride * stride).bit_length() - 1
    findings = []
    for name, sizes in objects.items():
        total, small = sum(sizes), sum(sizes[:bins])
        if total and small / total > LIMITS.small_objects:
            said = (
                f"{small / total:.0%} of the pixels of the class {name!r} are in objects of less than {stride}x{stride}"
                f" pixels, and the network's stride is {stride}."
            )
            value = {"class": name, "share": round(small / total, 4), "stride": stride}
            findings.append(Finding("PW203", "[model].name", said, value=value))
    return findings


def check_cover(samples: Sequence[Sample], index: dict[int, int], classes: Classes, background: int) -> list[Finding]:
    """Find scenes that labels fill little of, where others are filled.

    Args:
        index: raw value -> class.
        background: the class outside of polygons, which is no label; -1: none.
    """
    shares = []
    for sample in samples:
        facts = sample.facts
        parts = facts.get("parts", {}).values()
        counts = [0] * len(classes)
        valid = sum(part["count"] for part in parts)
        for part in parts:
            found = class_counts(part["pixels"], index, len(classes))
            counts = [a + b for a, b in zip(counts, found, strict=True)]
        if background >= 0 and sample.drawn is not None:
            counts[background] = 0
        if valid and sample.sound and "content" in facts:
            shares.append((sum(counts) / valid, sample))
    usual = sorted(share for share, _ in shares)[len(shares) // 2] if shares else 0.0
    if usual < LIMITS.usual_cover:
        return []
    findings = []
    for share, sample in shares:
        spot = Spot(sample.image, sample.mask)
        if share == 0 and sample.drawn is not None:
            said = f"No polygon touches {sample.image}, while labels fill {usual:.0%} of most scenes."
            findings.append(Finding("PW224", str(sample.image), said, value=0.0, picture=spot))
        elif share < LIMITS.covered:
            file = str(sample.mask or sample.image)
            said = f"Labels fill {share:.2%} of {sample.image}, and {usual:.0%} of most scenes."
            findings.append(Finding("PW204", file, said, value=round(share, 6), picture=spot))
    return findings
