"""Character sets of HL7 v2 (table 0211, MSH-18) and the codecs that read and write them."""

from __future__ import annotations

from dicom_nodes.hl7.errors import Hl7Error

ASCII = "ASCII"
UTF8 = "UNICODE UTF-8"

#: Table 0211 -> Python codec. The Japanese sets are code extensions of ISO 2022: one codec reads
#: them all, and ASCII between the escape sequences.
CODECS: dict[str, str] = {
    ASCII: "ascii",
    "ISO IR6": "ascii",
    **{f"8859/{part}": f"iso8859-{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15)},
    UTF8: "utf-8",
    "UNICODE": "utf-8",
    "ISO IR14": "iso2022_jp_ext",
    "ISO IR87": "iso2022_jp_ext",
    "ISO IR159": "iso2022_jp_ext",
    "GB 18030-2000": "gb18030",
    "KS X 1001": "euc_kr",
    "BIG-5": "big5",
}
#: How senders write them.
_ALIASES = {"UTF-8": UTF8, "UTF8": UTF8, "UNICODE UTF8": UTF8, "": ""}


def codec(stated: str, default: str) -> str:
    """The codec of an MSH-18 value; repetitions (``~``) add code extensions to the first.

    Args:
        stated: MSH-18 as received; empty = the sender says nothing.
        default: the site's set for that case, a key of `CODECS`.

    Raises:
        Hl7Error: a set that we cannot read.
    """
    names = [_name(part) for part in stated.split("~")]
    codecs = [_codec(name or default) for name in names]
    extended = [c for c in codecs if c.startswith("iso2022")]
    return extended[0] if extended else codecs[0]


def decode(content: bytes, stated: str, default: str) -> str:
    """The text of a message.

    Raises:
        Hl7Error: the bytes are not in that set.
    """
    name = codec(stated, default)
    try:
        return content.decode(name)
    except UnicodeDecodeError as error:
        raise Hl7Error(
            f"the message is not in its character set ({name}); correct MSH-18 at the sender, or "
            "set hl7.default_charset when it states none"
        ) from error


def encode(text: str, name: str) -> bytes:
    """The bytes of a message; what the set cannot say becomes ``?``."""
    return text.encode(_codec(name), errors="replace")


def _name(stated: str) -> str:
    plain = " ".join(stated.strip().upper().split())
    return _ALIASES.get(plain, plain)


def _codec(name: str) -> str:
    try:
        return CODECS[name]
    except KeyError:
        known = ", ".join(CODECS)
        raise Hl7Error(f"character set (MSH-18) not supported; supported: {known}") from None
