"""Holds every drafted sentence against the heads and the study; by rule, without a model."""

from inference.report.guard.check import check

__all__ = ["check"]
