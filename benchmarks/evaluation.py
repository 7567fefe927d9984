"""From logits at a quarter of the size to scores, beside torch's resize and argmax with torchmetrics.

    python benchmarks/evaluation.py [--images 200] [--classes 150] [--size 512]

Both get the same logits and masks, image by image and in turns, and must end with the same mean IoU. Seconds are those
of the whole set. The ratio is the median of the images' ratios. Memory is how much the peak grows after the tenth
image.
"""

import argparse
import json
import os
import resource
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torchmetrics.classification import MulticlassJaccardIndex

from pixelwise.evaluation.metrics import confusion_matrix, scores
from pixelwise.upsampling import argmax_upsampled

RESULTS = Path(__file__).parent / "results" / "evaluation.json"


def peak_mib() -> float:
    """Return the process's largest memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure, compare, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--classes", type=int, default=150)
    parser.add_argument("--size", type=int, default=512)
    given = parser.parse_args()
    classes, side = given.classes, given.size
    generator = torch.Generator().manual_seed(0)
    metric = MulticlassJaccardIndex(num_classes=classes, ignore_index=-1, average=None)
    matrix = 0
    ours, theirs, peaks = [], [], []
    for i in range(given.images):
        logits = torch.randn(1, classes, side // 4, side // 4, generator=generator)
        mask = torch.randint(-1, classes, (1, side // 8, side // 8), generator=generator)
        mask = mask.repeat_interleave(8, 1).repeat_interleave(8, 2).to(torch.int16)
        turns = [(ours, 0), (theirs, 1)] if i % 2 else [(theirs, 1), (ours, 0)]
        for taken, who in turns:
            start = time.perf_counter()
            if who == 0:
                labels, _ = argmax_upsampled(logits, (side, side), confidence=False)
                matrix = matrix + confusion_matrix(mask.numpy(), labels.numpy(), classes)
            else:
                full = F.interpolate(logits, size=(side, side), mode="bilinear", align_corners=False)
                metric.update(full.argmax(dim=1), mask.long())
            taken.append(time.perf_counter() - start)
        peaks.append(peak_mib())
    found = scores(matrix, [str(k) for k in range(classes)])
    difference = abs(found.miou - float(metric.compute().mean()))
    row = {
        "images": given.images,
        "classes": classes,
        "size": side,
        "seconds": {"pixelwise": round(sum(ours), 3), "torchmetrics": round(sum(theirs), 3)},
        "times_pixelwise": round(statistics.median(b / a for a, b in zip(ours, theirs, strict=True)), 2),
        "miou_difference": difference,
        "growth_mib_after_ten": round(peaks[-1] - peaks[min(9, len(peaks) - 1)], 1),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
    }
    if all(given == parser.get_default(name) for name, given in vars(given).items()):
        RESULTS.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    else:
        print("Not kept: the table is of the default images, classes and size.")
    print(row)


if __name__ == "__main__":
    main()
