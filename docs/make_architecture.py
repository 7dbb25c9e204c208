"""Writes the drawings and the table of rooms of docs/architecture.md from the code: `python docs/make_architecture.py`.

A room is a folder of `app` or `training`, or a file that lies beside the rooms. An arrow says that a module of one room imports a
module of the other; arrows that follow from others (A imports B, B imports C, so A may import C) are left out.
"""

import ast
import html
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
START, END = "<!-- rooms: written by docs/make_architecture.py -->", "<!-- end of rooms -->"
PACKAGES = ("app", "training")

BOX_WIDTH, BOX_HEIGHT, GAP_X, GAP_Y, MARGIN = 130, 32, 36, 40, 16  # px
STYLE = "font-family: system-ui, sans-serif; font-size: 13px; text-anchor: middle"

Rooms = dict[str, set[str]]


def modules(package: str) -> dict[str, Path]:
    """Module -> file."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported_by(path: Path) -> set[str]:
    """The modules that a file imports; `from a import b` gives both a and a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def room_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def rooms_of(package: str) -> Rooms:
    """Room -> the rooms of its package that it imports from."""
    files, rooms = modules(package), defaultdict(set)
    for module, path in files.items():
        room = room_of(module)
        if room != package:
            others = {room_of(name) for name in imported_by(path) if name in files}
            rooms[room] |= others - {room, package}
    return dict(rooms)


def reachable(rooms: Rooms, room: str) -> set[str]:
    """All rooms that a room imports from, directly or not."""
    found: set[str] = set()
    waiting = list(rooms[room])
    while waiting:
        if (name := waiting.pop()) not in found:
            found.add(name)
            waiting += rooms[name]
    return found


def essential(rooms: Rooms) -> Rooms:
    """The arrows that do not follow from others."""
    return {
        room: {name for name in names if not any(name in reachable(rooms, other) for other in names - {name})}
        for room, names in rooms.items()
    }


def floors(rooms: Rooms) -> list[list[str]]:
    """Rooms by height: a room stands above all it imports from; the highest floor first."""
    height: dict[str, int] = {}

    def height_of(room: str) -> int:
        if room not in height:
            height[room] = 1 + max((height_of(name) for name in rooms[room]), default=-1)
        return height[room]

    for room in rooms:
        height_of(room)
    return [
        sorted(room for room in rooms if height[room] == level) for level in sorted(set(height.values()), reverse=True)
    ]


def draw(package: str) -> str:
    """The rooms of a package as SVG: boxes on floors, and the essential arrows."""
    rooms = rooms_of(package)
    rows = floors(rooms)
    widest = max(map(len, rows))
    width = 2 * MARGIN + widest * (BOX_WIDTH + GAP_X) - GAP_X
    height = 2 * MARGIN + len(rows) * (BOX_HEIGHT + GAP_Y) - GAP_Y
    place = {}
    for level, row in enumerate(rows):
        left = (width - len(row) * (BOX_WIDTH + GAP_X) + GAP_X) / 2
        for column, room in enumerate(row):
            place[room] = (left + column * (BOX_WIDTH + GAP_X), MARGIN + level * (BOX_HEIGHT + GAP_Y))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" style="{STYLE}">',
        f"<title>The rooms of {package}, and who imports whom</title>",
        '<marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#667"/></marker>',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for room, names in sorted(essential(rooms).items()):
        for name in sorted(names):
            (x, y), (to_x, to_y) = place[room], place[name]
            line = f'x1="{x + BOX_WIDTH / 2:g}" y1="{y + BOX_HEIGHT}" x2="{to_x + BOX_WIDTH / 2:g}" y2="{to_y}"'
            parts.append(f'<line {line} stroke="#667" marker-end="url(#end)"/>')
    for room, (x, y) in sorted(place.items()):
        parts.append(
            f'<rect x="{x:g}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="5" fill="#eef2fb" stroke="#446"/>'
        )
        name = html.escape(room.partition(".")[2])
        parts.append(f'<text x="{x + BOX_WIDTH / 2:g}" y="{y + BOX_HEIGHT / 2 + 5:g}">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def table() -> str:
    """The rooms with the first sentence of what they say of themselves, and whom they import."""
    lines = []
    for package in PACKAGES:
        lines += [f"| `{package}` room | what is in it | imports from |", "| --- | --- | --- |"]
        files, rooms = modules(package), rooms_of(package)
        for room in sorted(rooms, key=lambda name: (len(reachable(rooms, name)), name)):
            said = ast.get_docstring(ast.parse(files[room].read_text(encoding="utf-8"))) or ""
            names = ", ".join(f"`{name.partition('.')[2]}`" for name in sorted(rooms[room])) or "nothing"
            summary = " ".join(said.split("\n\n")[0].split()).replace("|", "\\|")
            lines.append(f"| `{room.partition('.')[2]}` | {summary} | {names} |")
        lines.append("")
    return "\n".join(lines)


def written() -> dict[Path, str]:
    """File -> what it should hold."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    after = rest.partition(END)[2]
    pictures = {ROOT / "docs" / "images" / f"rooms-{package}.svg": draw(package) for package in PACKAGES}
    return {**pictures, PAGE: f"{before}{START}\n\n{table()}\n{END}{after}"}


if __name__ == "__main__":
    for path, text in written().items():
        path.write_text(text, encoding="utf-8")
