"""Values as bytes and back: a tag, plain fields and raw arrays, with a checksum over all of it.

An encoded value is

    magic, 4 bytes | format, 1 byte | length of the header, 2 bytes | header | content | checksum

The header is ASCII and describes the content, such as `TokenDist;<i8:256;<f4:256;i;d`: the tag,
and of each part its kind, with the length of a text or the shape of an array. The content has
the parts without gaps, little-endian. Nothing is executed, and no length is trusted: their sum
must be what is there. The checksum is the first half of SHA-256 over the entry's digest and
all that precedes it, so that the value of another entry is detected as well. It finds
accidents; it is no signature.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final, TypeVar

import msgspec

__all__ = [
    "CorruptValueError",
    "Part",
    "RawArray",
    "UnknownValueError",
    "decode",
    "encode",
    "finite",
    "register",
]

T = TypeVar("T")

_MAGIC: Final = b"fwsv"
_FORMAT: Final = 1
_CHECKSUM: Final = 16
#: Bytes of one item, by the dtypes that an array can have, in NumPy's notation.
_ITEM_SIZES: Final = {
    "|b1": 1,
    "|i1": 1,
    "|u1": 1,
    "<i2": 2,
    "<u2": 2,
    "<f2": 2,
    "<i4": 4,
    "<u4": 4,
    "<f4": 4,
    "<i8": 8,
    "<u8": 8,
    "<f8": 8,
}
_CONSTANTS: Final[dict[str, bool | None]] = {"n": None, "t": True, "f": False}
#: Numbers as the struct module calls them.
_NUMBERS: Final = {"i": "q", "d": "d"}
_START: Final = struct.Struct("<4sBH")
_MAX_HEADER: Final = 0xFFFF
_INT: Final = struct.Struct("<q")
_FLOAT: Final = struct.Struct("<d")


class CorruptValueError(ValueError):
    """Bytes that are no value of this entry: damaged, cut, or of another entry."""


class UnknownValueError(ValueError):
    """A value or tag that the codec does not know, or a number that is not finite."""


class RawArray(msgspec.Struct, frozen=True, gc=False):
    """The content of an array, without NumPy.

    Attributes:
        dtype: In NumPy's notation, little-endian, such as `<f4`.
        shape: Number of items in each dimension.
        data: The items in C order.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes


#: One field of a value.
Part = RawArray | float | int | str | bool | None


@dataclass(frozen=True, slots=True)
class _Type:
    tag: str
    to_parts: Callable[[Any], Sequence[Part]]
    from_parts: Callable[..., Any]


_by_type: dict[type, _Type] = {}
_by_tag: dict[str, _Type] = {}


def register(
    tag: str,
    type_: type[T],
    to_parts: Callable[[T], Sequence[Part]],
    from_parts: Callable[..., T],
) -> None:
    """Make values of a type storable. Subclasses are other types.

    Args:
        tag: Name of the type in stored values; ASCII without `;`. A changed layout is a new tag.
        type_: The type.
        to_parts: Returns the fields of a value. It raises `UnknownValueError` for a value
            that is not to be stored.
        from_parts: Makes a value of its fields, given as positional arguments; what it
            raises means that the stored value is corrupt.
    """
    known = _Type(tag, to_parts, from_parts)
    _by_type[type_] = _by_tag[known.tag] = known


def encode(value: object, digest: bytes) -> bytes:
    """Return a value as bytes.

    Args:
        value: A value of a known type.
        digest: Digest of its entry, 32 bytes.

    Raises:
        UnknownValueError: The value cannot be stored.
    """
    known = _by_type.get(type(value))
    if known is None:
        raise UnknownValueError(f"values of type {type(value).__name__} cannot be stored")
    parts = [_encoded(part) for part in known.to_parts(value)]
    header = ";".join((known.tag, *(kind for kind, _ in parts))).encode("ascii")
    if len(header) > _MAX_HEADER:
        raise UnknownValueError(f"a value of {len(parts)} parts is too complex")
    start = _START.pack(_MAGIC, _FORMAT, len(header))
    body = b"".join((start, header, *(content for _, content in parts)))
    return body + _checksum(body, digest)


def decode(data: bytes, digest: bytes, start: int = 0) -> Any:
    """Return the value of encoded bytes.

    Args:
        data: What `encode` returned, perhaps after something else.
        digest: Digest of the entry.
        start: Where the encoded value begins in `data`.

    Raises:
        CorruptValueError: The bytes are not those that `encode` returned for this entry.
        UnknownValueError: They are, but by a program that knows more types.
    """
    if type(data) is not bytes or len(data) < start + _START.size + _CHECKSUM:
        raise CorruptValueError("the value is cut")
    if not data.endswith(_checksum(memoryview(data)[start:-_CHECKSUM], digest)):
        raise CorruptValueError("the checksum is wrong")
    magic, format_, length = _START.unpack_from(data, start)
    if magic != _MAGIC:
        raise CorruptValueError("the value does not begin as one")
    if format_ != _FORMAT:
        raise UnknownValueError(f"the value has format {format_}, not {_FORMAT}")
    header = start + _START.size
    try:
        return _from_parts(data[header : header + length], data, header + length)
    except UnknownValueError:
        raise
    except Exception as error:
        raise CorruptValueError(f"the parts are wrong: {error}") from error


def _from_parts(header: bytes, data: bytes, start: int) -> Any:
    """Return the value whose content is between `start` and the checksum."""
    tag, content, readers = _layout(header)
    size = len(data) - _CHECKSUM - start
    if size != content.size:
        raise CorruptValueError(f"the content has {size} bytes, not {content.size}")
    known = _by_tag.get(tag)
    if known is None:
        raise UnknownValueError(f"no type is known for the tag {tag!r}")
    parts = list(content.unpack_from(data, start))
    for place, read in readers:
        parts[place] = read(parts[place])
    return known.from_parts(*parts)


def _checksum(body: bytes | memoryview, digest: bytes) -> bytes:
    checksum = sha256(digest)
    checksum.update(body)
    return checksum.digest()[:_CHECKSUM]


def _encoded(part: Part) -> tuple[str, bytes]:
    """Return the description of a part, and its content."""
    if isinstance(part, RawArray):
        return _encoded_array(part)
    if type(part) is str:
        text = part.encode("utf-8", "surrogatepass")
        return f"s:{len(text)}", text
    if type(part) is float:
        return "d", _FLOAT.pack(part)
    if type(part) is int:
        try:
            return "i", _INT.pack(part)
        except struct.error as error:
            raise UnknownValueError("an integer has more than 64 bits") from error
    for kind, constant in _CONSTANTS.items():
        if part is constant:
            return kind, b""
    raise UnknownValueError(f"a part of type {type(part).__name__} cannot be stored")


def _encoded_array(array: RawArray) -> tuple[str, bytes]:
    size = _ITEM_SIZES.get(array.dtype)
    if size is None:
        raise UnknownValueError(f"arrays of {array.dtype} cannot be stored")
    if math.prod(array.shape) * size != len(array.data):
        raise UnknownValueError(f"an array of shape {array.shape} has {len(array.data)} bytes")
    return f"{array.dtype}:{','.join(map(str, array.shape))}", array.data


#: Makes a part of its bytes.
_Reader = Callable[[bytes], Part]


@lru_cache(maxsize=256)
def _layout(header: bytes) -> tuple[str, struct.Struct, list[tuple[int, _Reader]]]:
    """Return the tag, the layout of the content, and the places of parts that are to be read.

    It is cached, as many values share a header.
    """
    tag, *kinds = header.decode("ascii").split(";")
    items = [_item(*described.partition(":")[::2]) for described in kinds]
    layout = struct.Struct("<" + "".join(item for item, _ in items))
    return tag, layout, [(at, read) for at, (_, read) in enumerate(items) if read is not None]


def _item(kind: str, extent: str) -> tuple[str, _Reader | None]:
    """Return a part's item in a struct, and its reader; None where the item is the part.

    Raises:
        KeyError: The kind is unknown.
    """
    if kind in _CONSTANTS:
        return "0s", lambda _: _CONSTANTS[kind]
    if kind in _NUMBERS:
        return _NUMBERS[kind], None
    if kind == "s":
        return f"{_natural(extent)}s", lambda data: str(data, "utf-8", "surrogatepass")
    shape = tuple(map(_natural, extent.split(","))) if extent else ()
    size = math.prod(shape) * _ITEM_SIZES[kind]
    return f"{size}s", lambda data: RawArray(kind, shape, data)


def _natural(digits: str) -> int:
    if not digits.isdigit():
        raise CorruptValueError(f"{digits!r} is no length")
    return int(digits)


def finite(number: object) -> float:
    """Return a number that can be stored.

    Raises:
        UnknownValueError: It is no float, NaN or infinite, which only an error gives.
    """
    if type(number) is not float or not math.isfinite(number):
        raise UnknownValueError(f"{number!r} is no finite number")
    return number


def _pair(value: tuple[float, bool]) -> Sequence[Part]:
    if len(value) != 2 or type(value[1]) is not bool:
        raise UnknownValueError("of tuples only (float, bool) can be stored")
    return finite(value[0]), value[1]


register("float", float, lambda value: (finite(value),), float)
register("str", str, lambda value: (value,), str)
register("float,bool", tuple, _pair, lambda number, flag: (number, flag))
