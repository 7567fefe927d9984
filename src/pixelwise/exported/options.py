"""What an exported file takes and gives: the options that all of export shares."""

from dataclasses import dataclass

from pixelwise.errors import ConfigError

RUNTIMES = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2", "transformers": ""}
"""What a network can be exported to, and the suffix of its file; transformers' is a folder."""
OUTPUTS = ("logits", "labels", "confidence", "probabilities")
"""Logits at the network's stride [B,K,h,w]; and of each pixel: class [B,H,W], its softmax probability [B,H,W], and that
of all classes [B,K,H,W]."""
DTYPES = ("float32", "uint8", "uint16")
LAYOUTS = ("nchw", "nhwc")
DEEPNESS_RANGE = 255.0
"""By which Deepness divides 8-bit values."""
PRECISIONS = ("float32", "float16", "bfloat16", "int8")
"""Of weights and arithmetic; image and outputs have types of their own."""
DEFAULT_OUTPUTS, DEEPNESS_OUTPUTS = ("logits",), ("probabilities",)


@dataclass(frozen=True)
class ExportOptions:
    """What the file takes and gives.

    Raises:
        ConfigError: an option that does not work.
    """

    outputs: tuple[str, ...] = DEFAULT_OUTPUTS
    """Some of `OUTPUTS`."""
    dtype: str = "float32"
    """Type of the image, one of `DTYPES`; the units are the raw ones of the training images in all of them."""
    layout: str = "nchw"
    """Order of the image's axes, one of `LAYOUTS`."""
    size: tuple[int, int] | None = None
    """Height and width of all images; None: any from 32 up."""
    deepness: bool = False
    """For QGIS's plugin Deepness: one square tile of floats from 0 to 1, and probabilities."""
    resolution: float | None = None
    """Metres of ground per pixel, for whoever reads the file; None: that of the run's scenes, if they are there."""
    precision: str = "float32"
    """One of `PRECISIONS`. Normalisation, and what follows the logits, are float32 in all of them."""
    compiled: bool = False
    """Machine code for the processor at hand, by AOTInductor; for torch alone."""

    def __post_init__(self) -> None:
        if self.deepness and self.outputs not in (DEFAULT_OUTPUTS, DEEPNESS_OUTPUTS):
            raise ConfigError(
                f"Deepness reads probabilities alone, not {' and '.join(self.outputs)}. Leave the outputs out."
            )
        outputs = DEEPNESS_OUTPUTS if self.deepness else self.outputs
        # Each once, in one order.
        object.__setattr__(self, "outputs", tuple(name for name in OUTPUTS if name in outputs))
        unknown = [name for name in outputs if name not in OUTPUTS]
        if unknown or not outputs:
            named = f"{unknown[0]!r} is no output" if unknown else "No output is asked for"
            raise ConfigError(f"{named}. A file gives one or more of {', '.join(OUTPUTS)}.")
        chosen = (("dtype", self.dtype, DTYPES), ("layout", self.layout, LAYOUTS))
        for name, value, known in (*chosen, ("precision", self.precision, PRECISIONS)):
            if value not in known:
                raise ConfigError(f"The {name} of an exported file is one of {', '.join(known)}, not {value!r}.")
        if self.size is not None and min(self.size) < 32:
            raise ConfigError(f"The size {self.size[0]} x {self.size[1]} is too small: both sides are at least 32.")
        if self.resolution is not None and not self.resolution > 0:
            raise ConfigError(f"A resolution is a number of metres above 0, not {self.resolution}.")
        if self.deepness and (self.dtype, self.layout) != ("float32", "nchw"):
            raise ConfigError("Deepness gives float32 images in the order nchw. Leave dtype and layout as they are.")
