"""The page that a run leaves: `write_report`."""

from pixelwise.report.page import write_report

__all__ = ["write_report"]
