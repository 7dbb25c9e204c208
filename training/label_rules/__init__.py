"""Label rules turn the maps of a photo into its label map. Every paper has one file, every rule one entry here."""

from training.label_rules.drs import DRS
from training.label_rules.edam import EDAM, EDAM_PAPER
from training.label_rules.rule import PhotoMaps, Rule, RuleOptions, Settings
from training.label_rules.threshold import THRESHOLD

RULES: dict[str, Rule] = {"threshold": THRESHOLD, "drs": DRS, "edam": EDAM, "edam-paper": EDAM_PAPER}

__all__ = ["RULES", "PhotoMaps", "Rule", "RuleOptions", "Settings"]
