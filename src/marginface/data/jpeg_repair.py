"""JPEGs that decoders warn about though all of their pixels are there.

libjpeg gives one kind of warning for what some writers leave in files and for missing data. What is
harmless is taken out of a copy here; if that decodes without a warning, nothing was missing.
"""

from collections.abc import Iterator

_MARK = 0xFF
_START, _END, _SCAN = 0xD8, 0xD9, 0xDA
_SEQUENTIAL = (0xC0, 0xC1)  # frames whose scans have no parameters of their own
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD8))  # TEM, RST0 to RST7


def without_oddities(encoded: bytes) -> bytes | None:
    """A JPEG without bytes between its segments and wrong scan parameters, with an end marker.

    None when it is no sequence of segments.
    """
    parts = [encoded[:2]]
    sequential = False
    try:
        for marker, segment, scan in _segments(encoded):
            sequential |= marker in _SEQUENTIAL
            if marker == _SCAN and sequential:
                segment = segment[:-3] + b"\0\x3f\0"  # all 64 coefficients, all their bits
            parts += [bytes((_MARK, marker)), segment, scan]
    except IndexError:
        return None
    return b"".join(parts) + bytes((_MARK, _END))


def _segments(encoded: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Marker, length with content, and entropy-coded data of each segment up to the end marker."""
    at = 2
    while True:
        found = _next_marker(encoded, at)
        if found is None or encoded[found + 1] == _END:
            return
        marker, at = encoded[found + 1], found + 2
        if marker in _WITHOUT_LENGTH:
            continue
        end = at + int.from_bytes(encoded[at : at + 2], "big")
        if end > len(encoded) or end < at + 2:
            raise IndexError("cut within a segment")
        stop = end
        if marker == _SCAN:
            following = _next_marker(encoded, end, within_scan=True)
            stop = len(encoded) if following is None else following
        yield marker, encoded[at:end], encoded[end:stop]
        at = stop


def _next_marker(encoded: bytes, at: int, within_scan: bool = False) -> int | None:
    """Where the next marker is; restart markers belong to a scan."""
    while 0 <= (at := encoded.find(_MARK, at)) < len(encoded) - 1:
        code = encoded[at + 1]
        if code not in (0x00, _MARK) and not (within_scan and 0xD0 <= code <= 0xD7):
            return at
        at += 1
    return None
