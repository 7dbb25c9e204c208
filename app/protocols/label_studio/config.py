"""Label Studio's label config (XML) -> which class of a model is drawn with which label of which tool.

https://labelstud.io/tags/brushlabels and /polygonlabels. A label stands for a class where its `value`, its `alias` or one
of the names in its `predicted_values` is the class's name; upper and lower case differ only where both are there.
"""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from app.inference.errors import ParameterError

Kind = Literal["brushlabels", "polygonlabels"]
KINDS: tuple[Kind, ...] = ("brushlabels", "polygonlabels")  # a class that both could draw is drawn with the brush
MAX_ELEMENTS = 5000
MAX_TOOLS = 50  # each of which is looked through for its labels
MAX_LISTED = 20  # names in a message


@dataclass(frozen=True)
class Tool:
    """A <BrushLabels> or <PolygonLabels>: its name, that of its <Image>, and the key of the image in a task's data.

    labels: what a result calls the label -> the names it goes by.
    """

    kind: Kind
    name: str
    image: str
    key: str
    labels: dict[str, tuple[str, ...]]

    def label_for(self, class_name: str) -> str | None:
        """What a result calls the label of a class; None where there is none."""
        for fold in (str, str.casefold):
            for label, names in self.labels.items():
                if fold(class_name) in map(fold, names):
                    return label
        return None


def read_tools(label_config: str) -> list[Tool]:
    """The brushes and polygons of a config that draw on one image, brushes first.

    Raises ParameterError for what is no XML, and where there is no such tool.
    """
    if "<!DOCTYPE" in label_config or "<!ENTITY" in label_config:
        raise _refusal("holds a document type, which no label config needs.")
    try:
        root = ET.fromstring(label_config)
    except (ET.ParseError, ValueError) as error:
        raise _refusal(f"is not XML: {error}.") from error
    if sum(1 for _ in root.iter()) > MAX_ELEMENTS:
        raise _refusal(f"has more than {MAX_ELEMENTS} elements, which is the limit.")
    images = {
        element.get("name", ""): value.removeprefix("$")
        for element in root.iter()
        if element.tag.lower() == "image" and (value := element.get("value", "")).startswith("$")
    }
    tools: list[Tool] = []
    for element in root.iter():
        kind = next((kind for kind in KINDS if kind == element.tag.lower()), None)
        image = next((name for name in element.get("toName", "").split(",") if name in images), None)
        if kind and image is not None and len(tools) <= MAX_TOOLS:
            tools.append(Tool(kind, element.get("name", ""), image, images[image], _labels_of(element)))
    if len(tools) > MAX_TOOLS:
        raise _refusal(f"has more than {MAX_TOOLS} brushes and polygons, which is the limit.")
    if not tools:
        raise _refusal(
            'has no <BrushLabels> or <PolygonLabels> for an <Image value="$...">. Take docs/label-studio.xml or '
            "docs/label-studio-polygons.xml as an example."
        )
    tools.sort(key=lambda tool: KINDS.index(tool.kind))
    return [tool for tool in tools if tool.image == tools[0].image]


def choose_labels(tools: Sequence[Tool], classes: Sequence[str]) -> dict[int, tuple[Tool, str]]:
    """Class index -> tool and label it is drawn with. A class without a label is left out.

    Raises ParameterError where that leaves none.
    """
    chosen: dict[int, tuple[Tool, str]] = {}
    for index, name in enumerate(classes):
        found = ((tool, label) for tool in tools if (label := tool.label_for(name)) is not None)
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
    """What a result calls each label (its alias, where it has one) -> the names it goes by."""
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
