"""Interfaces that others have defined: the Open Inference Protocol and Label Studio's ML backend."""
