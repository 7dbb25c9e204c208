"""AMR has two classifiers, and the modulation that tells them apart."""

from training.methods.amr.classifier import AmrClassifier, merge_pair, normalize
from training.methods.amr.modulation import AMM, gaussian

__all__ = ["AMM", "AmrClassifier", "gaussian", "merge_pair", "normalize"]
