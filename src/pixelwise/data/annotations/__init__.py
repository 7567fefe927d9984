"""Annotations of other tools, read as labels and written back from predictions: one file for each format."""

from pixelwise.data.annotations.formats import FORMATS, WRITERS, read, recognise
from pixelwise.data.annotations.records import AnnotatedImage, Annotations, MaskImage, Region

__all__ = ["FORMATS", "WRITERS", "AnnotatedImage", "Annotations", "MaskImage", "Region", "read", "recognise"]
