"""An output is taken out of a model's graph before ONNX Runtime reads it: it works out every output that a graph names, whether
anybody asks for it or not.

A file is a protobuf message: fields one after the other, each with its number and its length before it. Two of ONNX's messages
matter here, ModelProto, whose field 7 is the graph, and GraphProto, whose fields 12 are its outputs.
"""

from collections.abc import Iterator

GRAPH, OUTPUT = 7, 12
NAME, TYPE, TENSOR_TYPE, ELEMENT_TYPE = 1, 2, 1, 1  # Those of an output (ValueInfoProto), and what its type leads to.
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5  # A field begins with its number and one of these kinds.


def without_output(content: bytes, name: str) -> tuple[bytes, int | None]:
    """Return the file without the output `name` of its graph, and the number of the output's element type (ONNX: 2 is uint8).

    A file that has no such output, or is no protobuf message at all, comes back as it is, with None.
    """
    try:
        for number, begin, start, end in _fields(content, 0, len(content)):
            if number == GRAPH:
                for inner, first, value, last in _fields(content, start, end):
                    if inner == OUTPUT and _part(content[value:last], NAME) == name.encode():
                        view, size = memoryview(content), _varint(end - start - (last - first))
                        parts = view[: begin + 1], size, view[start:first], view[last:end], view[end:]
                        return b"".join(parts), _element_type(content[value:last])
    except (IndexError, ValueError):  # It is no such message; ONNX Runtime says so of it.
        pass
    return content, None


def _fields(content: bytes, place: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (number, begin, start, end) of the fields of a message: where each begins, and where its value starts and ends.

    Raises IndexError or ValueError where the bytes are no message.
    """
    while place < end:
        begin = place
        key, place = _read_varint(content, place)
        kind, start = key & 7, place
        if kind == VARINT:
            _, place = _read_varint(content, place)
        elif kind == LENGTH:
            length, start = _read_varint(content, place)
            place = start + length
        elif kind in (FIXED64, FIXED32):
            place += 8 if kind == FIXED64 else 4
        else:
            raise ValueError(f"there is no kind {kind} of field")
        if place > end:
            raise IndexError(place)
        yield key >> 3, begin, start, place


def _read_varint(content: bytes, place: int) -> tuple[int, int]:
    """Return a number that is written in sevens of bits, the least first, and where it ends."""
    value = shift = 0
    while True:
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, place
        if shift > 63:
            raise ValueError("the number has more than 64 bits")


def _varint(value: int) -> bytes:
    written = bytearray()
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def _part(message: bytes, wanted: int) -> bytes:
    """Return the value of the first field of that number, empty where there is none."""
    return next(
        (message[start:end] for number, _, start, end in _fields(message, 0, len(message)) if number == wanted), b""
    )


def _element_type(output: bytes) -> int | None:
    """Return the number of the element type of an output."""
    number = _part(_part(_part(output, TYPE), TENSOR_TYPE), ELEMENT_TYPE)
    return number[0] if number else None
