"""Compress the datasets of the factories into the transfer syntaxes that PACS send."""

from __future__ import annotations

import tempfile
from pathlib import Path

import gdcm
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

BY_PYDICOM = (RLELossless, JPEGLSLossless, JPEGLSNearLossless, JPEG2000Lossless)
BY_GDCM = {
    JPEGLossless: gdcm.TransferSyntax.JPEGLosslessProcess14,
    JPEGLosslessSV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
}
NATIVE = (ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
LOSSLESS = (*NATIVE, RLELossless, JPEGLSLossless, JPEG2000Lossless, *BY_GDCM)
"""Every syntax here gives back the very same values."""


def compress(ds: Dataset, syntax: str) -> Dataset:
    """The dataset in another transfer syntax; the argument is left alone."""
    copy = pydicom.dcmread(_written(ds))
    if syntax in BY_GDCM:
        return _by_gdcm(ds, syntax)
    if syntax in NATIVE:
        copy.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
        if syntax == ExplicitVRBigEndian:
            words = memoryview(copy.PixelData).cast("H")
            copy.PixelData = b"".join(word.to_bytes(2, "big") for word in words)
            list(copy.iterall())  # converts every raw little endian element
        copy.set_original_encoding(syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian)
        return copy
    options = {"jls_error": 2} if syntax == JPEGLSNearLossless else {}
    copy.compress(syntax, generate_instance_uid=False, **options)
    return copy


def _by_gdcm(ds: Dataset, syntax: str) -> Dataset:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.dcm", Path(folder) / "target.dcm"
        ds.save_as(source, enforce_file_format=True)
        reader = gdcm.ImageReader()
        reader.SetFileName(str(source))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(BY_GDCM[syntax]))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(target))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        result = pydicom.dcmread(target)
        _ = result.PixelData
        return result


def _written(ds: Dataset) -> pydicom.filebase.DicomBytesIO:
    buffer = pydicom.filebase.DicomBytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    return buffer
