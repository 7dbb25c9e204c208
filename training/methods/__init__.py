"""Classifier methods: tags -> class scores and activation maps. One file each, one entry here."""

from training.methods.amr import AmrClassifier
from training.methods.cam import CamClassifier
from training.methods.drs import DrsClassifier
from training.methods.edam import EdamClassifier
from training.methods.method import Classifier, Options

METHODS: dict[str, type[Classifier]] = {
    "cam": CamClassifier,
    "drs": DrsClassifier,
    "amr": AmrClassifier,
    "edam": EdamClassifier,
}

__all__ = ["METHODS", "Classifier", "Options"]
