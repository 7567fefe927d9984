"""A trained UNet++ cut down to fewer levels, and what each depth scores and costs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pixelwise.data.split import open_split
from pixelwise.errors import ConfigError
from pixelwise.evaluation.evaluate import evaluate_scenes
from pixelwise.fast.fuse import fuse
from pixelwise.models.cost import cost
from pixelwise.models.prune import prune
from pixelwise.models.segmenter import Segmenter
from pixelwise.models.unetpp import NestedDecoder
from pixelwise.runs.model_folder import load_model, save_model
from pixelwise.runs.run_folder import open_finished_run

COSTED = 512
"""Side of the image whose cost is shown."""


@dataclass(frozen=True)
class Depth:
    """One way to cut the network."""

    level: int
    parameters: int
    flops: int
    """Of one image of 512x512; a multiply-add counts as two."""
    miou: float | None
    """On the run's validation scenes, 0 to 1; None if no pixel there is labelled."""


def depths(run: str | Path, *, report: Callable[[str], None] | None = None) -> list[Depth]:
    """Score and cost each depth of a run's UNet++ on the run's own validation scenes (section 3.3 of its paper).

    Args:
        run: the run's folder.
        report: called with a sentence per depth.

    Raises:
        ConfigError: no such run, a network that cannot be pruned, or no validation scenes.
        WeightsError: the run has no model yet.
    """
    kept, config = open_finished_run(run)
    model, card, _ = load_model(run)
    levels = _levels(model)
    scenes = open_split(config, kept=kept.split)[1].validation
    if not scenes:
        raise ConfigError(
            f"{run} kept no scenes for validation to score depths on. Give --depth and an output.", code="PW613"
        )
    found = []
    for level in levels:
        smaller = prune(model, level)
        scores = evaluate_scenes(fuse(smaller), scenes, card, config.predict).scores
        spent = cost(smaller, size=(COSTED, COSTED))
        found.append(Depth(level, spent.parameters, spent.flops, scores.miou))
        if report:
            report(f"Depth {level} of {levels[-1]} is scored.")
    return found


def prune_run(run: str | Path, output: str | Path, *, depth: int) -> None:
    """Write the model folder of a run's UNet++ that ends at a depth.

    Args:
        run: a run, or a model folder.
        output: the new model folder; nothing may be there yet.
        depth: 1 to the network's own.

    Raises:
        ConfigError: a network that cannot be pruned, a depth that it does not have, or an output that exists already.
        WeightsError: no model there.
    """
    folder = Path(output)
    if folder.exists():
        raise ConfigError(f"{folder} exists already. Name a folder that does not.", code="PW801")
    model, card, _ = load_model(run)
    smaller = prune(model, depth)
    provenance = {**card.provenance, "pruned": f"depth {depth} of {_levels(model)[-1]}, from {Path(run).name}"}
    # Its temperature was fitted to the whole network.
    smaller_card = replace(card, architecture=smaller.architecture, provenance=provenance, temperature=1.0)
    save_model(folder, smaller, smaller_card)


def table_text(found: list[Depth]) -> str:
    """Return the depths as aligned columns."""
    lines = [f"{'depth':>5} {'parameters':>11} {'GFLOP':>7} {'mIoU':>6}"]
    for each in found:
        score = "" if each.miou is None else f"{each.miou:.3f}"
        lines.append(f"{each.level:>5} {each.parameters / 1e6:>9.2f} M {each.flops / 1e9:>7.1f} {score:>6}".rstrip())
    return "\n".join(lines)


def _levels(model: Segmenter) -> list[int]:
    decoder = model.decoder
    if not isinstance(decoder, NestedDecoder):
        raise ConfigError(f"Only a UNet++ can be pruned, and the network is {model.architecture.name}.")
    if len(decoder.heads) < 2:
        raise ConfigError("This UNet++ has a single head (deep_supervision = false). Pruning needs one at each depth.")
    return sorted(int(level) for level in decoder.heads)
