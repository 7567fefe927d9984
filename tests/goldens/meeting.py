"""How far a network is from what its reference recorded."""

from collections.abc import Callable

import golden
import torch
from torch import Tensor, nn
from unfilled import unfilled

import pixelwise as pw
from pixelwise.models import Decoded, Segmenter


def worst_errors(
    name: str,
    create: Callable[[], Segmenter],
    outputs: Callable[[Segmenter, Tensor, str], dict[str, Tensor]],
    *,
    rules: tuple[str, ...] | None = None,
    fused: bool = False,
    mended: Callable[[dict[str, Tensor], str], dict[str, Tensor]] | None = None,
) -> dict[str, float]:
    """Load each rule's weights, run all inputs, and return max |difference| / max |reference| per recorded output.

    Args:
        create: makes the network, whose options `load_weights` then sets as the layout says.
        outputs: network, image and name of the run -> outputs under their recorded names; others may be among them.
        rules: those to look at; None: all.
        fused: look at the fused network.
        mended: changes the weights for a run, where the reference's run did.
    """
    spec = golden.load(name)
    errors, last, loaded, got = {}, None, None, {}
    for recorded in spec["outputs"]:
        rule, run, tag, output = recorded.split("/")
        if rules is not None and rule not in rules:
            continue
        weights = (rule, mended and run)
        if weights != loaded:
            state = {k: torch.from_numpy(v) for k, v in golden.weights(spec, rule).items()}
            with unfilled():
                model = create().eval()
            pw.load_weights(model, state if mended is None else mended(state, run))
            model, loaded = pw.fuse(model) if fused else model, weights
        if (rule, run, tag) != last:  # outputs of one run stand together
            with torch.no_grad():
                got = outputs(model, torch.from_numpy(golden.inputs(spec, tag)), run)
            last = (rule, run, tag)
        errors[recorded] = golden.compare(spec, recorded, got[output].numpy())
    return errors


def on_the_way(model: Segmenter, image: Tensor) -> tuple[list[Tensor], Decoded, Tensor]:
    """Run a network once; return its encoder's maps, its decoder's answer and its logits at the size of the image."""
    seen: dict[nn.Module, object] = {}
    parts = (model.encoder, model.decoder)
    hooks = [part.register_forward_hook(lambda part, given, found: seen.update({part: found})) for part in parts]
    full = model(image)
    for hook in hooks:
        hook.remove()
    return seen[model.encoder], seen[model.decoder], full
