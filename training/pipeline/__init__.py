"""A run is done here stage by stage, with what belongs to it: its needs, a trial of it, and a comparison of methods."""
