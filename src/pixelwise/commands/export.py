"""The command that exports a network for other runtimes."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pixelwise.commands.interruption import interruptible
from pixelwise.commands.parameters import OPTIONS
from pixelwise.commands.weights import say_binding

if TYPE_CHECKING:
    from pixelwise.exporting.certificate import Certificate, Lowered

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("run", type=PATH)
@click.argument("out", type=PATH)
@click.option(
    "--to",
    type=click.Choice(["onnx", "openvino", "torch", "transformers"]),
    help="Runtime.  [default: by OUT's ending: .onnx, .xml or .pt2]",
)
@click.option(
    "--output",
    "outputs",
    multiple=True,
    type=click.Choice(["logits", "labels", "confidence", "probabilities"]),
    help="What the file gives; several times for several.  [default: logits]",
)
@click.option(
    "--input",
    "dtype",
    default="float32",
    show_default=True,
    type=click.Choice(["float32", "uint8", "uint16"]),
    help="Type of the image, in raw units.",
)
@click.option(
    "--layout", default="nchw", show_default=True, type=click.Choice(["nchw", "nhwc"]), help="Axes of the image."
)
@click.option("--size", nargs=2, type=int, metavar="H W", help="One size for all images.  [default: any from 32 up]")
@click.option(
    "--for", "purpose", type=click.Choice(["deepness"]), help="A form of its own: deepness, QGIS's plugin; with onnx."
)
@click.option("--resolution", type=float, metavar="M", help="Metres per pixel.  [default: that of the run's scenes]")
@OPTIONS
@click.option(
    "--precision",
    default="float32",
    show_default=True,
    type=click.Choice(["float32", "float16", "bfloat16", "int8"]),
    help="Of weights and arithmetic; below float32 the certificate says what it costs. With onnx and openvino.",
)
@click.option(
    "--calibration",
    type=PATH,
    metavar="FOLDER",
    help="int8: images to calibrate on.  [default: the run's training part]",
)
@click.option(
    "--calibration-images", type=int, default=64, show_default=True, metavar="N", help="int8: crops of these."
)
@click.option(
    "--keep-float",
    multiple=True,
    metavar="LAYER",
    help="int8: layers that stay float32: decoder, 'encoder.stages.0*'; repeatable.  [default: those that cost much]",
)
@click.option("--allow", is_flag=True, help="Take a lower precision that costs more than one point of mIoU.")
@click.option(
    "--compile", "compiled", is_flag=True, help=".pt2: machine code for this processor, by AOTInductor and a compiler."
)
def export(
    run: Path,
    out: Path,
    to: str | None,
    outputs: tuple[str, ...],
    dtype: str,
    layout: str,
    size: tuple[int, int] | None,
    purpose: str | None,
    resolution: float | None,
    options: tuple[str, ...],
    precision: str,
    calibration: Path | None,
    calibration_images: int,
    keep_float: tuple[str, ...],
    allow: bool,
    compiled: bool,
) -> None:
    """Write a trained network for another runtime.

    RUN is a run or a model folder. OUT ends in .onnx, .xml (OpenVINO) or .pt2 (torch), or is a folder for transformers
    (SegFormer alone). The file takes images in raw units, as they are stored: normalisation and padding are inside.
    Before it gets its name it is run beside the network; the certificate lies beside it as certificate.json. If its
    answers differ, there is no file. `pixelwise predict` takes files with logits in the place of a run.

    \b
    Example:
      pixelwise export runs/fields fields.onnx
      pixelwise export runs/fields fields.onnx --output labels --output confidence --input uint8
      pixelwise export runs/fields fields-qgis.onnx --for deepness
      pixelwise export runs/fields fields.xml --to openvino
      pixelwise export runs/fields fields-int8.xml --precision int8
    """
    with interruptible("No file is written; give the same command again."):
        from pixelwise.config_table import parsed_options
        from pixelwise.exporting.export import export as export_run
        from pixelwise.runs.model_card import read_origins

        made = export_run(
            run,
            out,
            to=to,
            outputs=outputs or ("logits",),
            dtype=dtype,
            layout=layout,
            size=size,
            purpose=purpose,
            resolution=resolution,
            options=parsed_options(options),
            precision=precision,
            calibration=calibration,
            calibration_images=calibration_images,
            keep_float=keep_float,
            allow=allow,
            compile=compiled,
            report=click.echo,
        )
        say_binding(read_origins(run))
        proof = made.certificate
        if proof.lowered is not None:
            for line in _cost(made.path, proof, proof.lowered):
                click.echo(line)
            return
        click.echo(
            f"{made.path}: {proof.runtime} gives what torch gives on {len(proof.cases)} batches of {proof.images}. "
            f"Largest difference {proof.difference:.1e} of the largest value; {proof.equal_labels:.4%} of labels equal."
        )
        if proof.miou_torch is not None and proof.miou_export is not None:
            click.echo(
                f"mIoU on {proof.labelled_pixels:,} labelled pixels of it: torch {proof.miou_torch:.4f}, "
                f"the file {proof.miou_export:.4f}."
            )
        if proof.smallest_side > 32 and size is None and purpose is None:
            click.echo(f"Images need sides of at least {proof.smallest_side} pixels.")


def _cost(path: Path, proof: "Certificate", lowered: "Lowered") -> list[str]:
    """Return what a lower precision gives and costs."""
    before, after = lowered.bytes_float32 / 1e6, lowered.bytes / 1e6
    made = f", calibrated on {lowered.calibrated_on}" if lowered.calibrated_on else ""
    lines = [f"{path}: {lowered.precision}{made}. {after:.1f} MB instead of {before:.1f} MB in float32."]
    if lowered.kept_float:
        lines.append(f"Kept in float32: {', '.join(lowered.kept_float)}.")
    equal = f"{proof.equal_labels:.2%} of all labels are equal"
    if proof.loss is None:
        lines.append(f"{equal} on {proof.images}. What that is in mIoU is not known: no labelled image is at hand.")
    else:
        lines.append(
            f"mIoU on {proof.images} ({proof.labelled_pixels:,} labelled pixels): torch {proof.miou_torch:.4f}, the "
            f"file {proof.miou_export:.4f}, {_points(proof.loss)}; {equal}."
        )
    lines.append(f"Tried with {proof.runtime} on a processor with {lowered.processor}.")
    return lines


def _points(loss: float) -> str:
    points = round(100 * loss, 2)
    return "no loss" if points == 0 else f"{abs(points):.2f} points {'less' if points > 0 else 'more'}"
