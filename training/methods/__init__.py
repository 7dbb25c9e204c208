"""Classifier methods learn class scores and activation maps from tags. Every method has one file and one entry here."""

from training.methods.amr import AmrClassifier
from training.methods.cam import CamClassifier
from training.methods.drs import DrsClassifier
from training.methods.edam import EdamClassifier
from training.methods.joined import JoinedClassifier
from training.methods.method import METHODS, Classifier, FirstStage, Options

METHODS.update(cam=CamClassifier, drs=DrsClassifier, amr=AmrClassifier, edam=EdamClassifier, joined=JoinedClassifier)

__all__ = ["METHODS", "Classifier", "FirstStage", "Options"]
