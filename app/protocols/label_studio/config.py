"""Label Studio's label config (XML) says which class of a model is drawn with which label of which tool.

https://labelstud.io/tags/brushlabels and /polygonlabels. A label stands for a class where its `value`, its `alias` or one
of the names in its `predicted_values` means the class (`app.inference.class_names`); upper and lower
case differ only where both are there.
"""

import re
import xml.etree.ElementTree as ET  # nosec B405
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from app.inference.class_names import find_class
from app.inference.errors import ParameterError

Kind = Literal["brushlabels", "polygonlabels", "brush", "polygon"]
KINDS: tuple[Kind, ...] = get_args(Kind)  # A class that several could draw is drawn with the first of them.
MAX_ELEMENTS = 5000
MAX_TOOLS = 50  # A config may have this many tools, each of which is looked through for its labels.
MAX_LISTED = 20  # A message lists this many names.


@dataclass(frozen=True)
class Tool:
    """It is a <BrushLabels> or <PolygonLabels>, or a <Brush> or <Polygon> with <Labels> beside it: its name, that of its <Image>,
    and the key of the image in a task's data.

    labels: what a result calls the label -> the names it goes by. labels_name: of the <Labels> beside it. labels_key: where a
    task's data name the labels, as `value="$key"` says.
    """

    kind: Kind
    name: str
    image: str
    key: str
    labels: dict[str, tuple[str, ...]]
    labels_name: str | None = None
    labels_key: str | None = None

    def label_for(self, class_name: str, classes: Sequence[str]) -> str | None:
        """Return what a result calls the label of a class; None where there is none."""
        index = classes.index(class_name)
        for means in (
            lambda name: name == class_name,
            lambda name: name.casefold() == class_name.casefold(),
            lambda name: find_class(name, classes) == index,
        ):
            for label, names in self.labels.items():
                if any(map(means, names)):
                    return label
        return None

    def of_task(self, data: Mapping[str, Any]) -> "Tool":
        """Return the same with the labels that the task's data name."""
        named = find_value(data, self.labels_key) if self.labels_key else None
        entries = [entry.get("value") if isinstance(entry, dict) else entry for entry in named or ()]
        return replace(self, labels=self.labels | {entry: (entry,) for entry in entries if isinstance(entry, str)})


def find_value(data: Mapping[str, Any], key: str) -> Any:
    """Return what a task's data hold under a key; `a.b` and `a[0]` lead into objects and lists. None where that is
    nothing.
    """
    if key in data:
        return data[key]
    value: Any = data
    for step in re.findall(r"[^.\[\]]+", key):
        try:
            value = value[int(step)] if isinstance(value, list) else value[step]
        except (LookupError, TypeError, ValueError):
            return None
    return value


def read_tools(label_config: str) -> list[Tool]:
    """Return the brushes and polygons of a config that draw on an image, brushes first.

    Raises ParameterError for what is no XML, and where there is no such tool.
    """
    if "<!DOCTYPE" in label_config or "<!ENTITY" in label_config:
        raise _refusal("holds a document type, which no label config needs.")
    try:
        root = ET.fromstring(label_config)  # nosec B314
    except (ET.ParseError, ValueError) as error:
        raise _refusal(f"is not XML: {error}.") from error
    if sum(1 for _ in root.iter()) > MAX_ELEMENTS:
        raise _refusal(f"has more than {MAX_ELEMENTS} elements, which is the limit.")
    images = {
        element.get("name", ""): value.removeprefix("$")
        for element in root.iter()
        if element.tag.lower() == "image"
        and (value := element.get("value") or element.get("valueList") or "")
        and "/" not in value  # A value with a slash is an address, and no key of a task.
    }
    tools = _tools_in(root, images)
    if not tools:
        raise _refusal(
            'has no <BrushLabels> or <PolygonLabels> for an <Image value="$...">. Take docs/label-studio.xml or '
            "docs/label-studio-polygons.xml as an example."
        )
    tools.sort(key=lambda tool: KINDS.index(tool.kind))
    return tools


def _tools_in(root: ET.Element, images: Mapping[str, str]) -> list[Tool]:
    """Return the brushes and polygons that draw on one of the images (name -> key of a task's data), as they come."""
    beside = [element for element in root.iter() if element.tag.lower() == "labels"]
    drawing = [element for element in root.iter() if element.tag.lower() in KINDS]
    if max(len(beside), len(drawing)) > MAX_TOOLS:
        raise _refusal(f"has more than {MAX_TOOLS} brushes and polygons, which is the limit.")
    tools = []
    for element in drawing:
        kind = next(kind for kind in KINDS if kind == element.tag.lower())
        image = next((name for name in _targets(element) if name in images), None)
        if image is None:
            continue
        named = (
            element if kind.endswith("labels") else next((entry for entry in beside if image in _targets(entry)), None)
        )
        if named is not None:
            own = None if named is element else named.get("name", "")
            key = named.get("value", "").removeprefix("$") or None
            tools.append(Tool(kind, element.get("name", ""), image, images[image], _labels_of(named), own, key))
    return tools


def _targets(element: ET.Element) -> list[str]:
    return [name.strip() for name in element.get("toName", "").split(",")]


def choose_labels(tools: Sequence[Tool], classes: Sequence[str]) -> dict[int, tuple[Tool, str]]:
    """Return, for each class index, the tool and the label it is drawn with. A class without a label is left out.

    Raises ParameterError where that leaves none.
    """
    chosen: dict[int, tuple[Tool, str]] = {}
    for index, name in enumerate(classes):
        found = ((tool, label) for tool in tools if (label := tool.label_for(name, classes)) is not None)
        if (first := next(found, None)) is not None:
            chosen[index] = first
    if not chosen:
        labels = [label for tool in tools for label in tool.labels]
        raise _refusal(
            f"has no label of a class the model knows. Its labels: {_listed(labels)}; the model's classes: "
            f'{_listed(classes)}. Name a label like its class, or add predicted_values="CLASS" to the label.'
        )
    return chosen


def _labels_of(tool: ET.Element) -> dict[str, tuple[str, ...]]:
    """Return what a result calls each label (its alias, where it has one) -> the names it goes by."""
    labels = {}
    for element in tool.iter():
        value = element.get("value", "")
        if element.tag.lower() == "label" and value and not value.startswith("$"):
            alias = element.get("alias") or value
            predicted = [name.strip() for name in element.get("predicted_values", "").split(",") if name.strip()]
            labels[alias] = (alias, value, *predicted)
    return labels


def _listed(names: Sequence[str]) -> str:
    shown = [name[:80] for name in names[:MAX_LISTED]]
    return ", ".join([*shown, "..."] if len(names) > MAX_LISTED else shown) or "none"


def _refusal(what: str) -> ParameterError:
    return ParameterError(f"the label config {what}", parameter="label_config")
