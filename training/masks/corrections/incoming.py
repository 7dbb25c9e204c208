"""What comes into a folder of corrections while nobody looks is taken in.

FOLDER/incoming/NAME.json      the service, or anybody, puts an export there, whole
FOLDER/incoming/NAME.taken     it is being taken in; where that was stopped, the next time goes on with it
FOLDER/incoming/NAME.refused   it cannot be used, which was said
"""

from pathlib import Path

from app.inference.errors import DataError
from app.inference.label_maps.corrections import INCOMING
from training.data import TaggedPhotos
from training.masks.corrections.add import add_corrections


def waiting(folder: Path) -> list[Path]:
    """Return what waits in a folder of corrections, each file under a name that nobody writes to any more."""
    for path in (folder / INCOMING).glob("*.json"):
        path.replace(path.with_suffix(".taken"))
    return sorted((folder / INCOMING).glob("*.taken"))


def take_in(path: Path, photos: TaggedPhotos, folder: Path) -> str:
    """Put the masks of a file that waits into the folder, those that can be used; returns what was done, in sentences."""
    try:
        said = add_corrections(path, photos, folder, skip=True)
    except DataError as error:
        path.replace(path.with_suffix(".refused"))
        return f"refused: {error}"
    path.unlink()
    return said
