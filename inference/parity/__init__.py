"""How far each model family is from its reference, measured on golden numbers and written down."""

from inference.parity.measure import chapters, measure
from inference.parity.report import compose, write_report
from inference.parity.rows import Chapter, Difference, Row

__all__ = ["Chapter", "Difference", "Row", "chapters", "compose", "measure", "write_report"]
