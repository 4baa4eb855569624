"""C-ECHO: is the peer there, and does it know us."""

from __future__ import annotations

from pynetdicom import build_context
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from dicom_nodes import answers
from dicom_nodes.node import Node
from dicom_nodes.scu.association import associate, broken, where


def echo(node: Node) -> None:
    """Return when the peer answered a C-ECHO with success.

    Raises:
        NodeError: what is wrong between us and the peer.
    """
    with associate(node, [build_context(Verification)]) as association:
        response = association.send_c_echo()
        if "Status" not in response:
            raise broken(node)
        error = answers.error_of(int(response.Status), f"{where(node)}: C-ECHO failed")
        if error:
            raise error
