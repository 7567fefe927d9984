"""Releases that are recognised by their names and not read, with what to do instead."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Foreign:
    """A release whose weights have no place here."""

    name: str
    signature: tuple[str, ...]
    """Patterns of names; it is this release if each fits the beginning of some name."""
    advice: str

    def recognises(self, names: set[str]) -> bool:
        """Return True if the names are this release's."""
        return all(any(re.match(pattern, name) for name in names) for pattern in self.signature)


_SMP = "pixelwise has networks of its own; start from the ImageNet weights of the encoder, or train one here"
_SMP_HEAD = r"segmentation_head\.\d"
_PADDLE_RESNET = (
    "their shortcuts average before they convolve, which the ResNet here does not; take torchvision's or "
    "mmsegmentation's weights"
)

FOREIGN = (
    Foreign(
        "SegFormer, segmentation_models.pytorch (code under a licence for non-commercial use)",
        (r"encoder\.patch_embed1\.", r"decoder\.mlp_stage\."),
        "take SegFormer's weights from its own release, transformers or mmsegmentation",
    ),
    Foreign("UNet++, segmentation_models.pytorch", (r"decoder\.blocks\.x_0_0\.", _SMP_HEAD), _SMP),
    Foreign("U-Net, segmentation_models.pytorch", (r"decoder\.blocks\.0\.conv1\.0\.", _SMP_HEAD), _SMP),
    Foreign("LinkNet, segmentation_models.pytorch", (r"decoder\.blocks\.0\.block\.0\.", _SMP_HEAD), _SMP),
    Foreign("FPN, segmentation_models.pytorch", (r"decoder\.seg_blocks\.", _SMP_HEAD), _SMP),
    Foreign("PSPNet, segmentation_models.pytorch", (r"decoder\.psp\.", _SMP_HEAD), _SMP),
    Foreign("DeepLabV3+, segmentation_models.pytorch", (r"decoder\.aspp\.", r"decoder\.block2\.", _SMP_HEAD), _SMP),
    Foreign("DeepLabV3, segmentation_models.pytorch", (r"decoder\.0\.convs\.", _SMP_HEAD), _SMP),
    Foreign("a network of segmentation_models.pytorch", (r"encoder\.", _SMP_HEAD), _SMP),
    Foreign(
        "ViT, torchvision",
        (r"conv_proj\.", r"encoder\.layers\.encoder_layer_0\."),
        "take timm's weights of the same network",
    ),
    Foreign(
        "ViT, transformers",
        (r"(vit\.|deit\.)?embeddings\.cls_token$", r"(vit\.|deit\.)?(encoder\.layer|layers)\.0\.layernorm_before\."),
        "take timm's weights of the same network",
    ),
    Foreign(
        "U-Net, PaddleSeg",
        (r"encode\.double_conv\.0\._conv\.", r"decode\.up_sample_list\."),
        "its coarsest level and its 3x3 classifier are other than those of any U-Net here; train one here",
    ),
    Foreign(
        "SegNeXt, PaddleSeg",
        (r"(backbone\.)?block1\.0\.attn\.spatial_gating_unit\.dwconvs\.",),
        "take SegNeXt's weights from its own release or mmsegmentation",
    ),
    Foreign(
        "SETR, PaddleSeg",
        (r"backbone\.patch_embed\.proj\.", r"head\.cls_head_norm\."),
        "take SETR's weights from its own release",
    ),
    Foreign("ResNet_vd, PaddleSeg", (r"(backbone\.)?conv1_1\._conv\.", r"(backbone\.)?bb_\d"), _PADDLE_RESNET),
)
