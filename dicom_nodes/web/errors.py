"""Why a DICOMweb request cannot be served; each error knows its HTTP status (PS3.18 8.5)."""

from __future__ import annotations

from dicom_nodes.errors import NodeError


class WebRequestError(NodeError):
    """A request that we refuse, or cannot serve."""

    permanent = True
    status = 400


class NotAcceptable(WebRequestError):
    """We have it, but in none of the forms that were asked for."""

    status = 406


class UnsupportedMedia(WebRequestError):
    """What was sent is of a kind that we do not take."""

    status = 415


class NotThere(WebRequestError):
    """There is no such study, series, instance, frame or value."""

    status = 404


class TooLarge(WebRequestError):
    """More bytes, parts or pixels than the limits allow."""

    status = 413


class Undecodable(WebRequestError):
    """The stored pixels cannot be decoded."""

    status = 406
