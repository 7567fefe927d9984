"""Where each network comes from, what its authors measured, and who may use the weights that they published."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Paper:
    """The publication of a family of networks."""

    title: str
    year: int
    """Of the first version."""
    arxiv: str
    weights: str
    """Whose weights are known here, and under which licence."""


@dataclass(frozen=True)
class Score:
    """A published mean intersection over union, in percent."""

    data: str
    single_scale: float
    multi_scale: float | None
    """With several scales and mirroring; None: not published."""
    source: str


PAPERS: dict[str, Paper] = {
    "segformer": Paper(
        "SegFormer", 2021, "2105.15203", "NVIDIA: NVIDIA Source Code License, non-commercial; mmsegmentation the same"
    ),
    "segnext": Paper("SegNeXt", 2022, "2209.08575", "Visual-Attention-Network/SegNeXt: Apache-2.0"),
    "hrnet": Paper("High-Resolution Representations (HRNetV2)", 2019, "1908.07919", "HRNet: MIT"),
    "hrnetv1": Paper("High-Resolution Representations (HRNetV1)", 2019, "1902.09212", "HRNet: MIT"),
    "hrnetv2p": Paper("High-Resolution Representations (HRNetV2p)", 2019, "1904.04514", "mmdetection: Apache-2.0"),
    "ocr": Paper("Object-Contextual Representations", 2019, "1909.11065", "HRNet: MIT"),
    "pspnet": Paper("Pyramid Scene Parsing", 2016, "1612.01105", "hszhao/semseg: MIT; mmsegmentation: Apache-2.0"),
    "deeplabv3": Paper("Rethinking Atrous Convolution", 2017, "1706.05587", "torchvision: BSD-3-Clause"),
    "deeplabv3plus": Paper("DeepLabV3+", 2018, "1802.02611", "VainF/DeepLabV3Plus-Pytorch: MIT"),
    "linknet": Paper("LinkNet", 2017, "1707.03718", "none published under a free licence"),
    "unet": Paper("U-Net", 2015, "1505.04597", "milesial/Pytorch-UNet: GPL-3.0"),
    "unetpp": Paper("UNet++", 2018, "1807.10165", "none published"),
    "unet3p": Paper("UNet 3+", 2020, "2004.08790", "none published"),
    "fchardnet": Paper("HarDNet", 2019, "1909.00948", "PingoLH/FCHarDNet: MIT"),
    "setr": Paper("SETR", 2020, "2012.15840", "fudan-zvg/SETR: MIT"),
    "segmenter": Paper("Segmenter", 2021, "2105.05633", "rstrudel/segmenter: MIT"),
    "depict": Paper("DEPICT", 2024, "2411.03033", "QishuaiWen/DEPICT: see its repository"),
    "eomt": Paper("Your ViT is Secretly an Image Segmentation Model (EoMT)", 2025, "2503.19108", "tue-mps/eomt: MIT"),
    "hmsa": Paper("Hierarchical Multi-Scale Attention", 2020, "2005.10821", "NVIDIA: BSD-3-Clause"),
}

# EoMT's scores are in its repository's table of models with DINOv2.
RELEASE_NOTES, PAPER = "the authors' release notes", "the paper"

SCORES: dict[str, tuple[Score, ...]] = {
    "segformer-b0": (Score("ADE20K val", 37.4, None, PAPER),),
    "segformer-b4": (Score("ADE20K val", 50.3, 51.1, PAPER),),
    "segformer-b5": (Score("ADE20K val", 51.0, 51.8, PAPER),),
    "segnext-t": (
        Score("ADE20K val", 41.1, 42.2, RELEASE_NOTES),
        Score("Cityscapes val", 79.8, 81.4, RELEASE_NOTES),
    ),
    "segnext-s": (
        Score("ADE20K val", 44.3, 45.8, RELEASE_NOTES),
        Score("Cityscapes val", 81.3, 82.7, RELEASE_NOTES),
    ),
    "segnext-b": (
        Score("ADE20K val", 48.5, 49.9, RELEASE_NOTES),
        Score("Cityscapes val", 82.6, 83.8, RELEASE_NOTES),
    ),
    "segnext-l": (
        Score("ADE20K val", 51.0, 52.1, RELEASE_NOTES),
        Score("Cityscapes val", 83.2, 83.9, RELEASE_NOTES),
    ),
    "hrnet-w48": (
        Score("ADE20K val", 43.1, 44.2, RELEASE_NOTES),
        Score("Cityscapes val", 80.9, None, RELEASE_NOTES),
    ),
    "hrnet-w48-ocr": (
        Score("ADE20K val", 44.5, 45.5, RELEASE_NOTES),
        Score("Cityscapes val", 81.6, None, RELEASE_NOTES),
    ),
    "hmsa": (Score("Cityscapes val", 86.9, None, RELEASE_NOTES),),
    "fchardnet-70": (Score("Cityscapes val", 76.0, None, RELEASE_NOTES),),
    "pspnet": (
        Score("ADE20K val", 41.9, 42.8, RELEASE_NOTES),
        Score("Cityscapes val", 77.3, 78.4, RELEASE_NOTES),
    ),
    "eomt-l": (
        Score("ADE20K val", 58.4, None, RELEASE_NOTES),
        Score("Cityscapes val", 84.2, None, RELEASE_NOTES),
    ),
    "setr-naive": (
        Score("ADE20K val", 48.1, None, RELEASE_NOTES),
        Score("Cityscapes val", 77.9, None, RELEASE_NOTES),
    ),
    "setr-pup": (
        Score("ADE20K val", 48.6, None, RELEASE_NOTES),
        Score("Cityscapes val", 79.3, None, RELEASE_NOTES),
    ),
    "setr-mla": (
        Score("ADE20K val", 48.6, None, RELEASE_NOTES),
        Score("Cityscapes val", 77.2, None, RELEASE_NOTES),
    ),
}
"""By name of `create`, for the network's own encoder. Only what was read at its source; others have no entry."""


def paper_of(name: str) -> Paper:
    """Return the paper of a network, by the name that `create` takes."""
    family = "ocr" if name.endswith("-ocr") else name.split("-")[0]
    return PAPERS[family]
