"""The verb `fit` trains a classifier from tags, and finds the thresholds above which it holds a class to be present."""

from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from PIL import Image
from torch import nn

from app.inference.errors import ConfigError, DataError
from app.inference.maps.localization import scale_cams
from app.inference.model_card import ModelCard
from training.backbones import Backbone, check_weights
from training.checkpoint import load_weights, save_weights
from training.config.learning import FitConfig
from training.config.map_tables import ClassifierConfig
from training.config.run_config import RunConfig, validate_config
from training.data import TaggedPhotos
from training.data.augment import normalize
from training.data.mosaic import MosaicViews
from training.data.pairing import GroupSampler
from training.data.sampling import EpochSampler, repeat_factors
from training.data.source import rank_of
from training.data.views import TaggedViews
from training.export.served import ServedClassifier, TorchModel
from training.fit.device import make_fabric
from training.fit.loop import Metrics, fit
from training.methods import METHODS, Classifier, Options
from training.stages.card import run_card
from training.stages.ranking import best_f1_threshold, mean_average_precision
from training.stages.regression import last_features, start_by_regression

MIN_POSITIVES = 5  # A class with fewer photos gets the threshold that is found over all classes.
LEAST_HELD_OUT = 5  # This many photos are held out at least.
MOST_HELD_OUT = 0.2  # They may be this share of the photos, where `held_out` alone is fewer.


def build_classifier(config: ClassifierConfig, class_count: int, weights: str | None = None) -> Classifier:
    """Return a classifier by its configuration. `weights` (see `build_backbone`) start its backbone."""
    method, options = check_classifier(config)
    return method(class_count, config.backbone, config.output_stride, weights, options)


def check_classifier(config: ClassifierConfig) -> tuple[type[Classifier], Options]:
    """Return the method and its options. Raises ConfigError where there is no such method, or it knows no such option."""
    if config.method not in METHODS:
        raise ConfigError(f"unknown method {config.method!r}; there are {', '.join(METHODS)}")
    if config.first_views is not None and config.first_fit is None:
        raise ConfigError("[classifier] first_views is for the first of two stages; add first_fit, or leave it out")
    method = METHODS[config.method]
    options = validate_config(method.Options, config.options, "[classifier.options]")
    if config.mosaic is not None and method.photos_per_group(options) > 1:
        raise ConfigError(
            f"{config.method} compares photos that share a tag, mosaics do not; leave out [classifier.mosaic]"
        )
    return method, options


def fit_classifier(config: RunConfig, photos: TaggedPhotos) -> Path:
    """Train on the tags of `train` but the part held out (`hold_out`), choose nothing by masks; write
    `classifier/weights.pt`, the last weights.

    With `first_fit` the method's first network is trained alone before, into `classifier/first`. Photos of the choosing
    split serve to watch the mean average precision.
    """
    out = config.out / "classifier"
    require_photos(photos, ("train", photos.choosing_split, photos.report_split))
    classifier_card(config, photos.classes, (0.5,) * len(photos.classes))  # It refuses a name or class before training.
    settings = config.classifier
    if settings.first_fit is not None:
        first, weights_option = first_stage(settings)
        weights = fit_stage(first, photos, out / "first")
        settings = settings.model_copy(update={"options": settings.options | {weights_option: str(weights)}})
    return fit_stage(settings, photos, out)


def first_stage(settings: ClassifierConfig) -> tuple[ClassifierConfig, str]:
    """Return the first of a method's two stages, and the option of the second that takes its weights.

    Raises ConfigError where the method has one stage alone.
    """
    method, options = check_classifier(settings)
    first = method.first_stage(options)
    if first is None:
        raise ConfigError(f"{settings.method} trains in one stage; leave out [classifier.first_fit]")
    views = settings.first_views or settings.views
    alone = {"method": first.method, "options": first.options, "fit": settings.first_fit, "views": views}
    return settings.model_copy(update=alone), first.weights_option


def fit_stage(settings: ClassifierConfig, photos: TaggedPhotos, out: Path) -> Path:
    """Train one network on the tags; write `out`/weights.pt."""
    fabric = make_fabric(settings.fit)
    torch.manual_seed(settings.fit.seed)
    stride = settings.fit_output_stride or settings.output_stride
    trained_so = settings.model_copy(update={"output_stride": stride})
    classifier = build_classifier(trained_so, len(photos.classes), settings.weights)
    trained, _ = hold_out(photos, settings.held_out)
    if settings.regression is not None:
        start_by_regression(classifier, settings.backbone, photos, trained, settings.regression)
    views = TaggedViews(photos, trained, settings.views, settings.fit.seed)

    def validate(module: nn.Module) -> Metrics:
        split = photos.choosing_split
        return {"map": validation_map(module, photos, split, settings.views.crop, settings.fit.batch_size)}

    labels, threshold = views.image_labels, settings.repeat_threshold
    method, options = check_classifier(settings)
    sampler = make_sampler(fabric, labels, settings.fit, threshold, method.photos_per_group(options))
    shown = views if settings.mosaic is None else MosaicViews(views, settings.mosaic)
    fit(fabric, classifier, shown, settings.fit, out, validate=validate, sampler=sampler)
    if fabric.is_global_zero:
        if classifier.reads_features:
            size = settings.regression.size if settings.regression else settings.views.long_side[1]
            classifier.learn_maps(last_features(classifier.cpu(), photos, trained, size))
        save_weights(out / "weights.pt", classifier)
    fabric.barrier()
    return out / "weights.pt"


def require_photos(photos: TaggedPhotos, splits: tuple[str, ...]) -> None:
    """Raise DataError unless every one of `splits` holds a photo."""
    for split in splits:
        if not photos.splits.get(split):
            raise DataError(
                f"the data has no photo in {split!r}; training needs {' and '.join(dict.fromkeys(splits))}, "
                f"with one photo in each at least. Add photos, or list some of them in that split."
            )


def hold_out(photos: TaggedPhotos, share: float) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the photos of `train` the classifier is trained on, and those held out, which presence thresholds are fitted on.

    A hash of the name chooses a `share`, but at least five photos. None is held out where five are more than a fifth of
    `train`, or the share is 0; nor the last photos of a class.
    """
    names = photos.names("train")
    if not share or len(names) * MOST_HELD_OUT < LEAST_HELD_OUT:
        return names, ()
    ranks = {name: rank_of(f"held out: {name}") for name in names}  # Another hash may have split train from val.
    count = max(LEAST_HELD_OUT, sum(rank < share for rank in ranks.values()))
    labels = {name: photos.image_labels(name) for name in names}
    left, held = np.sum(list(labels.values()), axis=0), set()
    for name in sorted(names, key=ranks.__getitem__)[:count]:
        if (left - labels[name])[labels[name] > 0].all():
            left -= labels[name]
            held.add(name)
    return tuple(n for n in names if n not in held), tuple(n for n in names if n in held)


def make_sampler(
    fabric: Fabric, image_labels: np.ndarray, config: FitConfig, repeat_threshold: float, group_size: int = 1
) -> EpochSampler:
    """Return the order of the photos: rare classes repeated, in groups where the method wants groups."""
    repeats = repeat_factors(image_labels, repeat_threshold)
    place = (config.seed, fabric.global_rank, fabric.world_size, repeats)
    if group_size > 1:
        return GroupSampler(image_labels, config.batch_size, group_size, *place)
    return EpochSampler(len(image_labels), config.batch_size, *place)


def load_classifier(config: RunConfig, class_count: int) -> Classifier:
    """Return the classifier `fit_classifier` trained."""
    classifier = build_classifier(config.classifier, class_count)
    load_weights(config.out / "classifier" / "weights.pt", classifier)
    return classifier.eval()


def fill_backbone(backbone: Backbone, config: RunConfig, class_count: int) -> None:
    """Copy the run's classifier's backbone into a plain one (learnable suppression stays behind).

    Raises ConfigError where the two differ.
    """
    trained, plain = load_classifier(config, class_count).backbone.state_dict(), backbone.state_dict()
    check_weights(trained, plain, f'weights = "classifier": the {config.classifier.backbone} of [classifier]')
    backbone.load_state_dict({key: trained[key] for key in plain})


def classifier_card(config: RunConfig, classes: tuple[str, ...], thresholds: tuple[float, ...]) -> ModelCard:
    """Return the card of the run's classifier, figures left out."""
    settings, threshold = config.classifier, config.export.background_threshold
    if not isinstance(threshold, float):
        threshold = config.pseudo_label.background_threshold
    return run_card(
        config,
        settings,
        classes,
        name=config.export.classifier or f"{config.name}-{settings.method}",
        version=config.export.version or 1,
        task="cam",
        method=settings.method,
        paper=METHODS[settings.method].paper,
        preferred_size=config.localize.preferred_size,
        scales=config.localize.scales,
        flip=config.localize.flip,
        background_threshold=threshold,
        presence_thresholds=thresholds,
        seed=settings.fit.seed,
    )


def torch_classifier(
    config: RunConfig, classes: tuple[str, ...], classifier: Classifier, device: torch.device | None = None
) -> TorchModel:
    """Return the classifier behind the interface of `app.inference.maps.localization`; its card has no presence
    thresholds of its own yet.
    """
    card = classifier_card(config, classes, (0.5,) * len(classes))
    return TorchModel(ServedClassifier(classifier), card, device or torch.device("cpu"))


@torch.no_grad()
def validation_map(module: nn.Module, photos: TaggedPhotos, split: str, size: int, batch_size: int) -> float:
    """Return the mean average precision in percent on a split, photos squeezed to `size` x `size`."""
    device = next(module.parameters()).device
    names, scores = photos.names(split), []
    for start in range(0, len(names), batch_size):
        views = [Image.fromarray(photos.image(name)).resize((size, size)) for name in names[start : start + batch_size]]
        logits, _ = module(torch.stack([normalize(np.asarray(view)) for view in views]).to(device))
        scores.append(logits.float().cpu().numpy())
    if not np.isfinite(scores[-1]).all():
        raise ConfigError("the scores of the classifier are no longer numbers; lower fit.lr, or raise fit.warmup_steps")
    image_labels = np.stack([photos.image_labels(name) for name in names])
    return mean_average_precision(image_labels, np.concatenate(scores))


def fit_presence_thresholds(model: TorchModel, photos: TaggedPhotos, held_out: float) -> tuple[float, ...]:
    """Return, per class, the score that maximises F1 on the tags of the photos of `train` that are held out; no mask is read.

    Classes with fewer than five photos there share the threshold that maximises F1 over all classes together. Where
    nothing is held out (`hold_out`), all of `train` has to do, whose photos the classifier knows: the thresholds are then
    rather too high.
    """
    trained, held = hold_out(photos, held_out)
    names = held or trained
    scores = np.stack([scale_cams(model, photos.image(name)).scores for name in names])
    image_labels = np.stack([photos.image_labels(name) for name in names])
    shared = best_f1_threshold(image_labels.ravel(), scores.ravel())
    return tuple(
        best_f1_threshold(image_labels[:, c], scores[:, c]) if image_labels[:, c].sum() >= MIN_POSITIVES else shared
        for c in range(len(photos.classes))
    )
