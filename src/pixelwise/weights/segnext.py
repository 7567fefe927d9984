"""SegNeXt's names in its own release and in mmsegmentation, with the ImageNet encoders."""

from pixelwise.weights.layout import Layout


def _rules() -> tuple[tuple[str, str], ...]:
    # They count stages, strips of the stem and norms from 1, blocks from 0.
    rules = [
        (r"(?:backbone\.)?patch_embed1\.proj\.0\.", "encoder.embeddings.0.0.convolution."),
        (r"(?:backbone\.)?patch_embed1\.proj\.1\.", "encoder.embeddings.0.0.norm."),
        (r"(?:backbone\.)?patch_embed1\.proj\.3\.", "encoder.embeddings.0.2.convolution."),
        (r"(?:backbone\.)?patch_embed1\.proj\.4\.", "encoder.embeddings.0.2.norm."),
    ]
    for i in range(4):
        block, ours = rf"(?:backbone\.)?block{i + 1}\.(\d+)", f"encoder.stages.{i}.{{0}}"
        gate = rf"{block}\.attn\.spatial_gating_unit"
        rules += [
            (rf"(?:backbone\.)?patch_embed{i + 1}\.proj\.", f"encoder.embeddings.{i}.convolution."),
            (rf"(?:backbone\.)?patch_embed{i + 1}\.norm\.", f"encoder.embeddings.{i}.norm."),
            (rf"{block}\.norm([12])\.", f"{ours}.norm{{1}}."),
            (rf"{block}\.layer_scale_([12])$", f"{ours}.scale{{1}}"),
            (rf"{block}\.attn\.proj_1\.", f"{ours}.attention.before."),
            (rf"{block}\.attn\.proj_2\.", f"{ours}.attention.after."),
            (rf"{gate}\.conv0\.", f"{ours}.attention.gate.local."),
            (rf"{gate}\.conv([012])_1\.", f"{ours}.attention.gate.strips.{{1}}.0."),
            (rf"{gate}\.conv([012])_2\.", f"{ours}.attention.gate.strips.{{1}}.1."),
            (rf"{gate}\.conv3\.", f"{ours}.attention.gate.mix."),
            (rf"{block}\.mlp\.fc1\.", f"{ours}.feed_forward.expand."),
            (rf"{block}\.mlp\.dwconv\.(?:dwconv\.)?", f"{ours}.feed_forward.depthwise."),
            (rf"{block}\.mlp\.fc2\.", f"{ours}.feed_forward.project."),
            (rf"(?:backbone\.)?norm{i + 1}\.", f"encoder.norms.{i}."),
        ]
    return (
        *rules,
        (r"decode_head\.squeeze\.conv\.", "decoder.squeeze."),
        (r"decode_head\.squeeze\.gn\.", "decoder.squeeze_norm."),
        (r"decode_head\.hamburger\.ham_in\.conv\.", "decoder.bread_in."),
        (r"decode_head\.hamburger\.ham_out\.conv\.", "decoder.bread_out."),
        (r"decode_head\.hamburger\.ham_out\.gn\.", "decoder.bread_norm."),
        (r"decode_head\.align\.conv\.", "decoder.align."),
        (r"decode_head\.align\.gn\.", "decoder.align_norm."),
        (r"decode_head\.conv_seg\.", "decoder.classifier."),
    )


LAYOUTS = (
    Layout(
        "SegNeXt, its own release and mmsegmentation",
        signature=(r"(backbone\.)?patch_embed1\.proj\.0\.", r"(backbone\.)?block1\.0\.attn\.spatial_gating_unit\."),
        rules=_rules(),
        unused=(r"head\.",),  # of image classification
    ),
)
