"""Tagged photos for training come through one interface (`TaggedPhotos`) from four sources, chosen by `DataConfig.source`."""

from training.config.data import DataConfig
from training.data.coco import open_coco
from training.data.folder import open_folder
from training.data.scenes import open_scenes
from training.data.source import TaggedPhotos
from training.data.voc import open_voc

SOURCES = {"folder": open_folder, "voc": open_voc, "coco": open_coco, "scenes": open_scenes}


def open_source(config: DataConfig) -> TaggedPhotos:
    """Open the configured source. Raises DataError for the first row that cannot be used, unless told to skip."""
    return SOURCES[config.source](config)


__all__ = ["SOURCES", "DataConfig", "TaggedPhotos", "open_source"]
