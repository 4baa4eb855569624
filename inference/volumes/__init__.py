"""Series on disk to geometry-true volumes: what the models and the overlays measure by."""

from inference.volumes.series_reader import read_series
from inference.volumes.volume import FrameRef, Limits, ModelGrid, SeriesVolumes, Volume

__all__ = ["FrameRef", "Limits", "ModelGrid", "SeriesVolumes", "Volume", "read_series"]
