"""Names of modules, operators and kernels in words that a user of networks knows."""

import re

WORDS = {
    # our faster forms
    "FusedConvolution": "convolution, norm and activation in one",
    "PackedLinear": "linear layer, packed",
    "FusedAllMLPDecoder": "SegFormer's decoder, its own steps",
    "FusedBlock": "SegNeXt's block in one",
    # networks
    "MixTransformer": "SegFormer's encoder, its own steps",
    "AllMLPDecoder": "SegFormer's decoder, its own steps",
    "EfficientSelfAttention": "attention: softmax and products",
    "MixFeedForward": "feed-forward: activation and rest",
    "OverlapPatchEmbedding": "patches to tokens",
    "Block": "block: sums of its parts",
    "ConvNorm": "convolution, norm and activation",
    "BasicBlock": "residual block: sum and activation",
    "Bottleneck": "residual block: sum and activation",
    # torch
    "Conv2d": "convolution",
    "ConvTranspose2d": "transposed convolution",
    "BatchNorm2d": "batch norm",
    "LayerNorm": "layer norm",
    "Linear": "linear layer",
    "GELU": "GELU",
    "ReLU": "ReLU",
    "MaxPool2d": "max pooling",
    "Sequential": "a row of layers",
    # runtimes
    "Conv": "convolution",
    "FusedConv": "convolution and activation in one",
    "QLinearConv": "convolution in int8",
    "NhwcFusedConv": "convolution and activation in one",
    "MatMul": "matrix product",
    "FusedMatMul": "matrix product",
    "Gemm": "matrix product",
    "FusedGemm": "matrix product and activation in one",
    "QGemm": "matrix product in int8",
    "QLinearMatMul": "matrix product in int8",
    "MatMulIntegerToFloat": "matrix product in int8",
    "DynamicQuantizeMatMul": "matrix product in int8",
    "QuantizeLinear": "float to int8",
    "DequantizeLinear": "int8 to float",
    "FakeQuantize": "float to int8",
    "LayerNormalization": "layer norm",
    "SkipLayerNormalization": "sum and layer norm",
    "MVN": "layer norm",
    "Reorder": "memory in another order",
    "ReorderInput": "memory in another order",
    "ReorderOutput": "memory in another order",
    "Transpose": "axes in another order",
    "Convert": "another type of numbers",
    "Cast": "another type of numbers",
    "FullyConnected": "linear layer",
    "Convolution": "convolution",
    "GroupConvolution": "convolution in groups",
    "Deconvolution": "transposed convolution",
    "Resize": "resampling",
    "Interpolate": "resampling",
    "Eltwise": "arithmetic per value",
    "Subgraph": "arithmetic per value, joined",
    "ScaledDotProductAttention": "attention",
    "conv2d": "convolution",
    "linear": "linear layer",
    "matmul": "matrix product",
    "layer_norm": "layer norm",
    "scaled_dot_product_attention": "attention",
    "upsample_bilinear2d": "resampling",
}


def in_words(name: str) -> str:
    """Return what a class, an operator or a kernel is called by people; names that are not known, taken apart."""
    if name in WORDS:
        return WORDS[name]
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).replace("_", " ").strip()
    return plain.lower() if plain else "an operation"
