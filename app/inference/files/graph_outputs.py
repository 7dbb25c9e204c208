"""An output is taken out of a model's graph before ONNX Runtime reads it, and with it the nodes that nothing else needs: it works out
every node of a graph, whether anybody asks for what comes of it or not.

A file is a protobuf message: fields one after the other, each with its number and its length before it. Four of ONNX's messages matter
here: ModelProto, whose field 7 is the graph; GraphProto, whose fields 1 are its nodes, each after those that it needs, and whose fields
12 are its outputs; NodeProto, whose fields 1 and 2 name what it takes and gives; and AttributeProto, whose field 20 says of what type an
attribute of a node is.
"""

from collections.abc import Iterator
from dataclasses import dataclass

GRAPH, NODE, OUTPUT = 7, 1, 12
TAKES, GIVES = 1, 2  # Those of a node.
# The body of a loop is an attribute of its node, of type 5 (GRAPH) or 10 (GRAPHS). These are field 20 with either, as a file has it.
GRAPH_TYPES = b"\xa0\x01\x05", b"\xa0\x01\x0a"
NAME, TYPE, TENSOR_TYPE, ELEMENT_TYPE = 1, 2, 1, 1  # Those of an output (ValueInfoProto), and what its type leads to.
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5  # A field begins with its number and one of these kinds.


@dataclass(frozen=True)
class Node:
    """It lies between two places of a file, and takes and gives what has these names. holds_graphs: graphs are among its attributes, and
    they may take anything by its name.
    """

    begin: int
    end: int
    takes: tuple[bytes, ...]
    gives: tuple[bytes, ...]
    holds_graphs: bool


def without_output(content: bytes, name: str) -> tuple[bytes, int | None]:
    """Return the file without the output `name` of its graph and without the nodes that it alone needs, and the number of the output's
    element type (ONNX: 2 is uint8).

    A file that has no such output, or is no protobuf message at all, comes back as it is, with None.
    """
    try:
        graphs = (places for number, *places in _fields(content, 0, len(content)) if number == GRAPH)
        for begin, start, end in graphs:
            graph, element_type = _graph_without(content, start, end, name.encode())
            view, size = memoryview(content), _varint(sum(map(len, graph)))
            return b"".join([view[: begin + 1], size, *graph, view[end:]]), element_type
    except (IndexError, KeyError, ValueError):
        pass  # It has no such output, or is no such message, of which ONNX Runtime says so.
    return content, None


def _graph_without(content: bytes, start: int, end: int, name: bytes) -> tuple[list[memoryview], int | None]:
    """Return the parts that are left of the graph between `start` and `end`, and the number of the output's element type.

    Raises KeyError where it has no such output.
    """
    fields = list(_fields(content, start, end))
    outputs = {
        _part(content[first:last], NAME): (begin, first, last)
        for number, begin, first, last in fields
        if number == OUTPUT
    }
    begin, first, last = outputs.pop(name)
    nodes = [_node(content, *places) for number, *places in fields if number == NODE]
    left_out = [(begin, last), *((node.begin, node.end) for node in _needless(nodes, set(outputs)))]
    return _without(content, start, end, sorted(left_out)), _element_type(content[first:last])


def _needless(nodes: list[Node], needed: set[bytes]) -> list[Node]:
    """Return the nodes that nothing `needed` comes of. Where a node holds graphs none is known to be needless."""
    if any(node.holds_graphs for node in nodes):
        return []
    found = []
    for node in reversed(nodes):
        if needed.isdisjoint(node.gives):
            found.append(node)
        else:
            needed.update(node.takes)
    return found


def _node(content: bytes, begin: int, start: int, end: int) -> Node:
    """Read a node whose field begins at `begin`, and whose value lies between `start` and `end`."""
    names: dict[int, list[bytes]] = {TAKES: [], GIVES: []}
    for number, _, first, last in _fields(content, start, end):
        if number in names:
            names[number].append(content[first:last])
    holds_graphs = any(content.find(each, start, end) >= 0 for each in GRAPH_TYPES)
    return Node(begin, end, tuple(names[TAKES]), tuple(names[GIVES]), holds_graphs)


def _without(content: bytes, start: int, end: int, left_out: list[tuple[int, int]]) -> list[memoryview]:
    """Return the parts between `start` and `end` that lie outside of these, which are in order."""
    view, parts = memoryview(content), []
    for first, last in left_out:
        parts.append(view[start:first])
        start = last
    return [*parts, view[start:end]]


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
