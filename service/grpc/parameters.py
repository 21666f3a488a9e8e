"""What a message asks for, checked: the same bounds and defaults as the REST door's parameters.

Rule: types and bounds only. What two parameters mean together is decided below the doors, so that REST agrees; a test
asks both doors for the same wrong things.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value

from service.errors import InvalidParameter
from service.recognition.faces import Which

DEFAULT_GALLERY: Final = "default"
MAX_GALLERY: Final = 63
MAX_ID: Final = 128
MAX_TEXT: Final = 200
# Doubles hold every whole number up to here: JSON's 5 arrives as 5.0 and is told as 5 again.
_WHOLE: Final = 2**53


def optional(request: Message, name: str) -> Any:
    """The field's value, None where it is absent."""
    return getattr(request, name) if request.HasField(name) else None


def text(request: Message, name: str, longest: int) -> str | None:
    """1 to `longest` characters, or absent."""
    value: str | None = optional(request, name)
    if value is not None and not 1 <= len(value) <= longest:
        raise InvalidParameter(f"{name} must have 1 to {longest} characters", parameter=name)
    return value


def gallery(request: Message) -> str:
    """The gallery's id."""
    return text(request, "gallery", MAX_GALLERY) or DEFAULT_GALLERY


def rate(request: Message, name: str) -> float | None:
    """A probability between 0 and 1, both excluded, or absent."""
    value: float | None = optional(request, name)
    if value is not None and not 0 < value < 1:  # NaN is refused too
        raise InvalidParameter(f"{name} must be between 0 and 1", parameter=name)
    return value


def within(request: Message, name: str, least: float, most: float) -> float | None:
    """A number from `least` to `most`, or absent."""
    value: float | None = optional(request, name)
    if value is not None and not least <= value <= most:
        raise InvalidParameter(f"{name} must be from {least:g} to {most:g}", parameter=name)
    return value


def limit(request: Message) -> int:
    """Persons a face."""
    return int(within(request, "limit", 1, 100) or 1)


def faces(request: Message, default: Which) -> Which:
    """`largest` or `all`."""
    value = optional(request, "faces")
    if value not in (None, "largest", "all"):
        raise InvalidParameter("faces must be largest or all", parameter="faces")
    return cast(Which, value or default)


def metadata(request: Message) -> Mapping[str, Any] | None:
    """The caller's own facts as plain values, or absent."""
    value: Struct | None = optional(request, "metadata")
    return None if value is None else _object(value)


def _object(of: Struct) -> dict[str, Any]:
    return {name: _plain(value) for name, value in of.fields.items()}


def _plain(value: Value) -> Any:
    match value.WhichOneof("kind"):
        case "struct_value":
            return _object(value.struct_value)
        case "list_value":
            return [_plain(each) for each in value.list_value.values]
        case "number_value":
            number = value.number_value
            if number != number or abs(number) == float("inf"):
                raise InvalidParameter("metadata holds a number that JSON cannot", parameter="metadata")
            return int(number) if number.is_integer() and abs(number) <= _WHOLE else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case _:
            return None
