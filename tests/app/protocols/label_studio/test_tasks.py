"""Label configs and tasks as projects have them: several images, pages, labels that tasks name, tools apart."""

import pytest

from tests.app.colour_models import BLACK, GREEN, RED, halves, to_file
from tests.app.photo_host import predict

CONFIG = '<View><Image name="i" value="$image"/><BrushLabels name="b" toName="i"><Label value="Cat"/><Label value="dog"/></BrushLabels></View>'
DOG, CAT = to_file(halves(RED, BLACK)), to_file(halves(GREEN, BLACK))


@pytest.fixture
def files(host):
    host.files = {"/data/dog.png": DOG, "/data/cat.png": CAT}
    return host.files


def test_each_image_is_drawn_on_with_its_own_tools(backend, files):
    config = """<View><Image name="left" value="$a"/><Image name="right" value="$b"/>
        <BrushLabels name="t1" toName="left"><Label value="dog"/></BrushLabels>
        <BrushLabels name="t2" toName="right"><Label value="cat"/></BrushLabels></View>"""
    both, right = predict(
        backend,
        {"a": "/data/dog.png", "b": "/data/cat.png"},
        {"a": "/data/cat.png", "b": "/data/cat.png"},
        label_config=config,
    )
    assert [(region["to_name"], region["from_name"]) for region in both["result"]] == [("left", "t1"), ("right", "t2")]
    assert len({region["id"] for region in both["result"]}) == 2
    assert [region["to_name"] for region in right["result"]] == ["right"]


@pytest.mark.parametrize(
    ("value", "data"),
    [
        ('value="$data.image"', {"data": {"image": "/data/dog.png"}}),
        ('value="$pages[0]"', {"pages": ["/data/dog.png"]}),
        ('valueList="$pages"', {"pages": ["/data/dog.png"]}),
        ('value="image"', {"image": "/data/dog.png"}),
        ('value="$image"', {"image": ["/data/dog.png"]}),
        ('value="$a.b"', {"a.b": "/data/dog.png"}),
    ],
)
def test_where_the_image_is(backend, files, value, data):
    (found,) = predict(backend, data, label_config=CONFIG.replace('value="$image"', value))
    assert [region["value"]["brushlabels"] for region in found["result"]] == [["dog"]]


def test_pages_have_numbers(backend, files):
    (found,) = predict(
        backend,
        {"pages": ["/data/dog.png", "/data/cat.png"]},
        label_config=CONFIG.replace('value="$image"', 'valueList="$pages"'),
    )
    assert [(region["item_index"], region["value"]["brushlabels"]) for region in found["result"]] == [
        (0, ["dog"]),
        (1, ["Cat"]),
    ]


def test_labels_that_the_task_names(backend, files):
    config = '<View><Image name="i" value="$image"/><BrushLabels name="b" toName="i" value="$labels"/></View>'
    named, strange = predict(
        backend,
        {"image": "/data/dog.png", "labels": [{"value": "Dog"}, "cat"]},
        {"image": "/data/dog.png"},
        label_config=config,
    )
    assert [region["value"]["brushlabels"] for region in named["result"]] == [["Dog"]]
    assert "no label of a class" in strange["problem"]["detail"]


@pytest.mark.parametrize("tool", ["Brush", "Polygon"])
def test_a_tool_with_its_labels_apart(backend, files, tool):
    config = f'<View><Image name="i" value="$image"/><Labels name="l" toName="i"><Label value="hound"/><Label value="Dog"/></Labels><{tool} name="b" toName="i"/></View>'
    (found,) = predict(backend, {"image": "/data/dog.png"}, label_config=config)
    drawn, labelled = found["result"]
    assert (drawn["type"], labelled["type"], drawn["id"]) == (tool.lower(), "labels", labelled["id"])
    assert (labelled["from_name"], labelled["value"]["labels"]) == ("l", ["Dog"])


def test_labels_may_be_usual_synonyms(backend, files):
    config = CONFIG.replace('value="dog"', 'value="Couch"')
    (found,) = predict(backend, {"image": "/data/cat.png", "tags": {"choices": ["couch"]}}, label_config=config)
    assert [region["value"]["brushlabels"] for region in found["result"]] == [["Couch"]]
