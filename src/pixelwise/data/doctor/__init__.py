"""What is wrong with the data of a configuration: every file is read once, and each mistake is a `Finding`."""

from pixelwise.data.doctor.codes import CODES, Code
from pixelwise.data.doctor.examination import examine
from pixelwise.data.doctor.finding import Examination, Finding, Spot

__all__ = ["CODES", "Code", "Examination", "Finding", "Spot", "examine"]
