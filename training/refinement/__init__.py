"""Better maps are made of maps: by IRN's random walk, DRS's refinement network, AdvCAM and the dense CRF."""
