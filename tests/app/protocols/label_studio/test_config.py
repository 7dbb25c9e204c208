"""Label configs of Label Studio: which class is drawn with which label."""

from xml.etree import ElementTree

import pytest

from app.inference.errors import ParameterError
from app.inference.labels import VOC_CLASSES, label_of, voc_palette
from app.protocols.label_studio.config import choose_labels, read_tools
from tests.app.photo_host import BRUSH, POLYGONS


def test_labels_are_matched_to_classes():
    config = """<View><Text name="t" value="$text"/><Image name="i" value="$photo"/>
        <PolygonLabels name="p" toName="i"><Label value="Dog"/><Label value="person"/><Label value="sofa"/></PolygonLabels>
        <BrushLabels name="b" toName="i">
            <Label value="DOG"/><Label value="dog" alias="hund"/>
            <Label value="Feline" predicted_values="lion, Cat"/><Label value="$more"/>
        </BrushLabels></View>"""
    chosen = choose_labels(read_tools(config), ("cat", "dog", "person", "sheep"))
    assert {index: (tool.name, label) for index, (tool, label) in chosen.items()} == {
        0: ("b", "Feline"),
        1: ("b", "hund"),  # the spelling that is exact; a result holds the alias
        2: ("p", "person"),
    }
    assert {tool.key for tool, _ in chosen.values()} == {"photo"}
    with pytest.raises(ParameterError, match="no label of a class the model knows.*Feline.*zebra"):
        choose_labels(read_tools(config), ("zebra",))


def test_ready_configs_have_the_classes_in_the_services_colours():
    for text, kind in ((BRUSH, "brushlabels"), (POLYGONS, "polygonlabels")):
        chosen = choose_labels(read_tools(text), VOC_CLASSES)
        assert [label for _, label in chosen.values()] == list(VOC_CLASSES)
        assert {tool.kind for tool, _ in chosen.values()} == {kind}
        for index, label in enumerate(ElementTree.fromstring(text).iter("Label")):
            red, green, blue = voc_palette()[label_of(index)]
            assert label.get("background") == f"#{red:02x}{green:02x}{blue:02x}"
