"""The page that a run leaves: `write_report`."""

from pixelwise.report.page import write_report
from pixelwise.report.parcel_map import ParcelFiles

__all__ = ["ParcelFiles", "write_report"]
