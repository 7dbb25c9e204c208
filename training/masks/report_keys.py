"""The keys of a run's figures and curves are explained in words for its report."""

FIGURES = {
    "map": "Mean average precision of the scores: how well they tell photos with a class from photos without it.",
    "cam_miou": "Mean IoU of the maps, cut at the model's threshold, the tags given.",
    "cam_precision": "Of the pixels that the maps give a class, the share that has it; mean over the classes.",
    "cam_recall": "Of the pixels of a class, the share that the maps find; mean over the classes.",
    "cam_miou_best": "The same mean IoU at the best threshold, which the masks themselves choose: an upper bound.",
    "cam_threshold_best": "That best threshold, times 100.",
    "cam_miou_untagged": "The same mean IoU where the tags are not given and the scores decide what is there.",
    "pseudo_label_miou": "Mean IoU of the pseudo-labels that the maps give after PAMR, the tags given.",
    "miou": "Mean IoU: the shared area of mask and truth over their joined area, mean over classes and background.",
    "precision": "Of the pixels that are given a class, the share that has it; mean over the classes.",
    "recall": "Of the pixels of a class, the share that is found; mean over the classes.",
    "crf_miou": "Mean IoU of the masks after a dense CRF.",
    "loss": "What training makes smaller.",
}
PREFIXES = {
    "float32_": "Before the weights were made smaller:",
    "tagged_": "The tags given:",
    "scales_": "Of several views of a photo, joined:",
    "constant_background": "A label of background everywhere, the lower bound:",
    "pseudo_label_": "The labels that the segmenter was trained on:",
}
COMMON = "_common"


def meaning_of(key: str) -> str:
    """Return one or two sentences about a key; empty for one that is not known."""
    if key in FIGURES:
        return FIGURES[key]
    if key.endswith(COMMON) and (whole := meaning_of(key.removesuffix(COMMON))):
        return f"Over the classes of `export.common` and the background alone: {lowered(whole)}"
    for prefix, words in PREFIXES.items():
        if key.startswith(prefix) and (rest := meaning_of(key.removeprefix(prefix).split(" ")[-1])):
            return f"{words} {lowered(rest)}"
    return ""


def lowered(sentence: str) -> str:
    """Return the sentence after a colon."""
    return sentence[0].lower() + sentence[1:]
