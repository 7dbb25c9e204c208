"""A client generated from the OpenAPI document by openapi-python-client, asked of a real service."""

import json
import subprocess
import sys

import pytest

from app.main import create_app
from app.runtime.settings import Settings
from tests.app.colour_models import BLACK, RED, halves, to_file
from tests.app.server import start_server

# Uses the generated client as its user would.
ASK = """
import sys
from generated import Client, models, types
from generated.api.masks import segment_photo
from generated.api.service import list_models

client = Client(base_url=sys.argv[1])
with open("photo.png", "rb") as photo:
    body = models.SegmentPhotoFilesBody(file=types.File(payload=photo, file_name="a.png"))
    print(segment_photo.sync(client=client, body=body).classes[0].class_)
with open("photo.png", "rb") as photo:
    body = models.SegmentPhotoFilesBody(file=types.File(payload=photo, file_name="a.png"))
    refused = segment_photo.sync(client=client, body=body, tags="wolf")
    print(type(refused).__name__, refused.status)
print(list_models.sync(client=client).models[0].task)
with open("photo.png", "rb") as photo:
    picture = client.get_httpx_client().post("/segment?format=png", files={"file": photo})
    print(picture.content.startswith(b"\\x89PNG"))
"""


@pytest.fixture
def document(models_directory):
    return create_app(Settings(models=models_directory, device="cpu")).openapi()


def test_operations_have_names_and_groups(document):
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    assert {"segment_photo", "heatmap_of_kept_photo", "list_models"} <= set(names)
    assert {tag for operation in operations for tag in operation["tags"]} == {
        "masks", "heatmaps", "pseudo-labels", "all results", "corrections", "service",
    }  # fmt: skip
    mask = document["paths"]["/segment"]["post"]["responses"]["200"]["content"]
    assert mask["image/png"]["schema"] == {"type": "string", "format": "binary"}


def test_every_reference_leads_somewhere(document):
    def references(value):
        if isinstance(value, dict):
            yield from ([value["$ref"]] if isinstance(value.get("$ref"), str) else ())
            value = list(value.values())
        for entry in value if isinstance(value, list) else ():
            yield from references(entry)

    for reference in set(references(document)):
        assert reference.rpartition("/")[-1] in document["components"]["schemas"]


@pytest.mark.environment("openapi-client")
def test_a_generated_client_works(document, models_directory, tmp_path):
    pytest.importorskip("openapi_python_client", reason="openapi-python-client could not be installed")
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    made = subprocess.run(
        [sys.executable, "-m", "openapi_python_client", "generate", "--path", tmp_path / "openapi.json", "--meta", "none", "--output-path", tmp_path / "generated"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "Cannot parse" not in made.stdout, made.stdout
    (tmp_path / "photo.png").write_bytes(to_file(halves(RED, BLACK)))
    (tmp_path / "ask.py").write_text(ASK)
    with start_server(models_directory) as server:
        server.wait_until_ready()
        asked = subprocess.run(
            [sys.executable, "ask.py", server.url], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
    assert asked.stdout.split() == ["dog", "Problem", "422", "cam", "True"], asked.stderr
