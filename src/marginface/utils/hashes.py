"""Short hashes of data and names."""

import hashlib


def short_hash(content: bytes | str, digits: int = 16) -> str:
    """The first hexadecimal digits of SHA-256; names of files may hold any bytes."""
    if isinstance(content, str):
        content = content.encode(errors="surrogateescape")
    return hashlib.sha256(content).hexdigest()[:digits]
