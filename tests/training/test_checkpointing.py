import copy

import pytest
import torch
from torch.utils._pytree import tree_leaves

import pixelwise as pw
from pixelwise.losses import segmentation_loss
from pixelwise.training.checkpointing import recompute_blocks

NAMES = ["segformer-b0", "segnext-t", "linknet", "hrnet-w18", "fchardnet-70", "unet", "segmenter-linear"]


def trained(model, blocks, image, mask):
    """Train one step; return gradients, state, and the numbers kept: in all, inside of blocks, as their input."""
    saved, inside, given = [], [], []

    def enter(block, inputs):
        given.extend(leaf.numel() for leaf in tree_leaves(inputs) if isinstance(leaf, torch.Tensor))
        inside.append(-sum(saved))

    def leave(block, inputs, output):
        inside[-1] += sum(saved)

    for name in blocks:
        model.get_submodule(name).register_forward_pre_hook(enter)
        model.get_submodule(name).register_forward_hook(leave)
    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor.numel()) or tensor, lambda t: t):
        logits = model.decode(image).logits
    segmentation_loss(logits, mask).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return gradients, model.state_dict(), (sum(saved), sum(inside), sum(given))


@pytest.mark.parametrize("name", NAMES)
def test_with_recomputed_blocks_gradients_and_statistics_are_the_same_and_blocks_keep_their_input_alone(name):
    size = {"image_size": 64, "encoder": "vit-tiny"} if name == "segmenter-linear" else {}
    side = 64
    plain = pw.create(name, classes=3, **size).train()
    other = copy.deepcopy(plain)
    recomputed = recompute_blocks(other.encoder)
    blocks = [name for name, module in other.named_modules() if "forward" in vars(module)]
    assert len(blocks) == recomputed > 0
    image, mask = torch.randn(2, 3, side, side), torch.randint(0, 3, (2, side, side))
    gradients, state, (kept, inside, given) = trained(plain, blocks, image, mask)
    found, other_state, (other_kept, _, _) = trained(other, [], image, mask)
    assert {k: v is None for k, v in found.items()} == {k: v is None for k, v in gradients.items()}
    for key, gradient in gradients.items():
        assert gradient is None or torch.equal(found[key], gradient), key
    for key, value in state.items():
        assert torch.equal(other_state[key], value), key
    assert given < inside
    assert other_kept <= kept - inside + given
