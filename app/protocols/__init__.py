"""Interfaces that others have defined are here: the Open Inference Protocol and Label Studio's ML backend."""
