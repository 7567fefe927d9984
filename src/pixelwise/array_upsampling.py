"""From logits to classes on numpy arrays, as `pixelwise.upsampling` does on tensors: for files that need no torch.

Both give the same classes, but where two logits are equal to rounding: torch fuses products and sums, numpy does not.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Float32, Float64, Integer

from pixelwise.labels import label_dtype

STRIP_ELEMENTS = 1 << 20
"""Largest number of logits in one strip: 4 MB in float32, about a core's share of cache."""
DECIDED_ELEMENTS = 1 << 18
"""Largest number of logits that are decided at once here, so that they and their parts stay in a core's own cache."""
FEW_CLASSES = 32
"""Up to so many, logits are decided plane by plane; more lie side by side, where numpy finds the highest at once."""

Size = tuple[int, int]
Labels = Integer[np.ndarray, "B H W"]
Confidence = Float32[np.ndarray, "B H W"]


def strips(shape: Sequence[int], size: Sequence[int], *, times: int = 1) -> Iterator[tuple[int, int]]:
    """Cut the full-size rows 0 to ``size[0]`` into ranges small enough for ``times`` `STRIP_ELEMENTS`.

    Args:
        shape: of the coarse logits, [B,K,h,w].
        size: full height and width, or the height of the part that is wanted.
    """
    rows = max(1, times * STRIP_ELEMENTS // max(1, shape[0] * shape[1] * size[1]))
    for top in range(0, size[0], rows):
        yield top, min(size[0], top + rows)


def neighbour_and_share(pixel: int, stride: int) -> tuple[int, float]:
    """Return the first of the two cells that a pixel of a cell lies between, and the share of the second.

    The first is 0 for the cell before the pixel's own, 1 for its own.
    """
    centre = (pixel + 0.5) / stride + 0.5
    return int(centre), centre - int(centre)


def upsample(logits: Float32[np.ndarray, "B K h w"], size: Size, *, align_corners: bool = False) -> np.ndarray:
    """Resize to ``size`` (height, width), bilinear; also images, to smaller sizes too."""
    return resampled_part(logits, size, size, size, align_corners=align_corners)


def resampled_part(
    logits: Float32[np.ndarray, "B K h w"], size: Size, part: Size, cells: Size, *, align_corners: bool = False
) -> Float32[np.ndarray, "B K _ _"]:
    """Resample the upper left ``part`` of an image of ``size``, both in pixels, to ``cells``, bilinear."""
    if part == size and logits.shape[2:] == cells:
        return logits
    places = []
    for count, coarse, pixels, kept in zip(cells, logits.shape[2:], size, part, strict=True):
        place = np.arange(count, dtype=np.float64)
        if align_corners:
            places.append(place * ((kept - 1) / max(1, count - 1)) * ((coarse - 1) / max(1, pixels - 1)))
        else:
            places.append((place + 0.5) * (kept / count / pixels * coarse) - 0.5)
    return _between(_between(logits, places[0], axis=2), places[1], axis=3)


def recentred(logits: Float32[np.ndarray, "B K h w"], size: Size) -> Float32[np.ndarray, "B K h w"]:
    """Resample logits with aligned corners, of an image of ``size``, to the centres of equal cells."""
    for axis, pixels in zip((2, 3), size, strict=True):
        cells = logits.shape[axis]
        centre = (np.arange(cells) + 0.5) * (pixels / cells) - 0.5
        logits = _between(logits, centre * ((cells - 1) / max(1, pixels - 1)), axis=axis)
    return logits


def softmax(logits: Float32[np.ndarray, "K n m"]) -> Float32[np.ndarray, "K n m"]:
    """Return the probabilities of all classes, which are the first axis."""
    shares = np.exp(logits - logits.max(axis=0))
    shares /= shares.sum(axis=0)
    return shares


def largest_logit(dtype: np.dtype) -> float:
    """Return the largest logit to upsample: between infinite ones, upsampling gives NaN."""
    return float(np.finfo(dtype).max) / 4


def decide(
    logits: Float32[np.ndarray, "B K h w"], *, confidence: bool = False, temperature: float = 1.0
) -> tuple[Labels, Confidence | None]:
    """Return the class with the highest logit (ties to the lower class) and, if asked, its softmax probability.

    Args:
        temperature: by which logits are divided before the softmax, and there alone: no label depends on it.
    """
    batch, classes, height, width = logits.shape
    labels = np.empty((batch, height, width), label_dtype(classes))
    shares = np.empty(labels.shape, np.float32) if confidence else None
    rows = max(1, DECIDED_ELEMENTS // (classes * width))
    for one in range(batch):
        for top in range(0, height, rows):
            there, some = np.s_[one, top : top + rows], _ordered(logits[one, :, top : top + rows])
            _decide(some, labels[there], None if shares is None else shares[there], temperature)
    return labels, shares


def decide_cells(
    cells: Float32[np.ndarray, "B K n w"], stride: int, *, confidence: bool = False, temperature: float = 1.0
) -> tuple[Labels, Confidence | None]:
    """Return `decide` of logits upsampled by a whole factor, for all cells but the outermost: those are neighbours.

    The way of `pixelwise.upsampling.decide_cells`: each of a cell's stride² pixels is a weighted sum of shifted maps.
    """
    batch, classes, n, w = cells.shape[0], cells.shape[1], cells.shape[2] - 2, cells.shape[3] - 2
    labels = np.empty((batch, n, stride, w, stride), label_dtype(classes))
    shares = np.empty(labels.shape, np.float32) if confidence else None
    count = max(1, min(n, DECIDED_ELEMENTS // (classes * max(1, w))))
    rows, pixels = (_ordered(np.empty((classes, count, width), np.float32)) for width in (w + 2, w))
    for one in range(batch):
        ordered = _ordered(cells[one])
        for top in range(0, n, count):
            high = min(count, n - top)
            for i in range(stride):
                first, share = neighbour_and_share(i, stride)
                above, below = (ordered[:, top + cell : top + cell + high] for cell in (first, first + 1))
                lines = _mixed(above, below, share, rows[:, :high])
                for j in range(stride):
                    first, share = neighbour_and_share(j, stride)
                    before, after = (lines[..., cell : cell + w] for cell in (first, first + 1))
                    mixed = _mixed(before, after, share, pixels[:, :high])
                    there = np.s_[one, top : top + high, i, :, j]
                    _decide(mixed, labels[there], None if shares is None else shares[there], temperature)
    full = (batch, n * stride, w * stride)
    return labels.reshape(full), None if shares is None else shares.reshape(full)


def argmax_upsampled(
    logits: Float32[np.ndarray, "B K h w"],
    size: Size,
    *,
    confidence: bool = False,
    temperature: float = 1.0,
    align_corners: bool = False,
) -> tuple[Labels, Confidence | None]:
    """Return `decide` of the upsampled logits, without building them."""
    height, width = logits.shape[2:]
    stride = size[0] // height
    if tuple(size) == (height, width):
        return decide(logits, confidence=confidence, temperature=temperature)
    largest = largest_logit(logits.dtype)
    logits = logits.clip(-largest, largest)
    if tuple(size) == (height * stride, width * stride) and not align_corners:
        rimmed = np.pad(logits, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
        return decide_cells(rimmed, stride, confidence=confidence, temperature=temperature)
    place = np.arange(size[0], dtype=np.float64)
    place = place * ((height - 1) / max(1, size[0] - 1)) if align_corners else (place + 0.5) * (height / size[0]) - 0.5
    parts = []
    for top, bottom in strips(logits.shape, size):
        lines = _between(logits, place[top:bottom], axis=2)
        full = upsample(lines, (bottom - top, size[1]), align_corners=align_corners)
        parts.append(decide(full, confidence=confidence, temperature=temperature))
    labels = np.concatenate([part for part, _ in parts], axis=1)
    return labels, np.concatenate([part for _, part in parts if part is not None], axis=1) if confidence else None


def _between(values: Float[np.ndarray, "*s"], places: Float64[np.ndarray, " n"], *, axis: int) -> np.ndarray:
    """Return linear interpolations along an axis; beyond its ends, what is there."""
    last = values.shape[axis] - 1
    places = places.clip(0, last)
    first = np.floor(places).astype(np.int64)
    share = (places - first).astype(values.dtype).reshape(-1, *[1] * (values.ndim - 1 - axis))
    low, high = (values.take(index, axis=axis) for index in (first, np.minimum(first + 1, last)))
    high -= low
    high *= share
    low += high
    return low


def _mixed(one: np.ndarray, other: np.ndarray, share: float, out: np.ndarray) -> np.ndarray:
    """Return, in ``out``, one array and a share of the other."""
    np.subtract(other, one, out=out)
    out *= np.float32(share)
    out += one
    return out


def _ordered(logits: Float32[np.ndarray, "K n w"]) -> Float32[np.ndarray, "K n w"]:
    """Return logits that lie in memory class by class or, beyond `FEW_CLASSES`, pixel by pixel."""
    if len(logits) <= FEW_CLASSES:
        return logits
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(logits, 0, -1)), -1, 0)


def _decide(
    logits: Float32[np.ndarray, "K n w"],
    labels: Integer[np.ndarray, "n w"],
    shares: Float32[np.ndarray, "n w"] | None,
    temperature: float,
) -> None:
    """Write the first of the classes with the highest logit and, if asked, its probability."""
    few, cooled = len(logits) <= FEW_CLASSES, np.float32(temperature)
    if few:
        best = _decide_planes(logits, labels)
    else:
        labels[...] = logits.argmax(axis=0)
        best = logits.max(axis=0)
    if shares is not None:
        total = np.zeros_like(best) if few else np.exp((logits - best) / cooled).sum(axis=0)
        for plane in logits if few else ():
            total += np.exp((plane - best) / cooled)
        np.divide(1, total, out=shares)


def _decide_planes(
    logits: Float32[np.ndarray, "K n w"], labels: Integer[np.ndarray, "n w"]
) -> Float32[np.ndarray, "n w"]:
    """Write the classes and return their logits. A class higher than all before it has a larger number than they have.

    numpy's argmax over planes is not vectorised; these are.
    """
    best, found = logits[0].copy(), np.zeros(labels.shape, labels.dtype)
    higher, number = np.empty(labels.shape, bool), np.empty_like(found)
    for i in range(1, len(logits)):
        np.greater(logits[i], best, out=higher)
        np.maximum(logits[i], best, out=best)
        np.multiply(higher, found.dtype.type(i), out=number)
        np.maximum(found, number, out=found)
    labels[...] = found
    return best
