"""Better maps from maps: IRN's random walk, DRS's refinement network, AdvCAM and the dense CRF."""
