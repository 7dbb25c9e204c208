"""What `python -m app label` writes, as FiftyOne's own importers read it (they need no database).

FiftyOne asks for an older Starlette and an OpenCV of its own, so it is in none of the extras: `make test` runs this file in
an environment of its own.
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.batch.folder import label_folder
from app.batch.labellers import InProcess
from app.http.request.parameters import AnalyzeParameters
from app.inference.labels import BACKGROUND, IGNORE_INDEX, voc_palette
from app.runtime.settings import Settings

pytestmark = [
    pytest.mark.environment("fiftyone"),
    # pycocotools 2.0.11 under numpy 2
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("labelled") / "out"
    labeller = InProcess(Settings(models=ROOT / "models", device="cpu"), AnalyzeParameters())
    _, complete = label_folder(ROOT / "tests" / "photos", out, labeller)
    assert complete
    return out


def label_map(labelled: Path, photo: str) -> np.ndarray:
    with Image.open(labelled / "SegmentationClass" / f"{Path(photo).stem}.png") as mask:
        return np.array(mask)


def test_coco_regions_are_the_masks(labelled: Path) -> None:
    coco = pytest.importorskip("fiftyone.utils.coco", reason="fiftyone could not be installed")
    importer = coco.COCODetectionDatasetImporter(
        data_path=str(labelled), labels_path=str(labelled / "annotations.json"), label_types=["segmentations"]
    )
    found = 0
    with importer:
        names = [category["name"] for category in importer.get_dataset_info()["categories"]]
        for photo, _, labels in importer:
            expected = label_map(labelled, photo)
            seen = np.zeros_like(expected)
            for detection in labels.detections if labels else ():
                height, width = expected.shape
                left, top = round(detection.bounding_box[0] * width), round(detection.bounding_box[1] * height)
                rows, columns = detection.mask.shape
                seen[top : top + rows, left : left + columns][detection.mask] = names.index(detection.label) + 1
                found += 1
            np.testing.assert_array_equal(seen, np.where(expected == IGNORE_INDEX, BACKGROUND, expected))
    assert found


def test_masks_have_the_colours_of_their_labels(labelled: Path) -> None:
    importers = pytest.importorskip("fiftyone.utils.data.importers", reason="fiftyone could not be installed")
    importer = importers.ImageSegmentationDirectoryImporter(
        data_path=str(labelled / "JPEGImages"), labels_path=str(labelled / "SegmentationClass"), load_masks=True
    )
    with importer:
        for photo, _, labels in importer:
            np.testing.assert_array_equal(labels.mask, voc_palette()[label_map(labelled, photo)])
