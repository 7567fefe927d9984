"""The page that a run leaves: `write_report`."""

from pixelwise.report.content import ParcelFiles
from pixelwise.report.page import write_report

__all__ = ["ParcelFiles", "write_report"]
