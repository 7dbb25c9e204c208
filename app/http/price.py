"""The price of a request is known before it is worked on: its networks look at this many millions of pixels at most.

    every view of every model    (preferred size x scale)^2, twice where it is mirrored too
    CCRM                         a plain pass over its views, then in every round at most four patches, none larger than the photo
    PAMR                         ten passes over the preferred size for each result that it refines

A million pixels took the models in `models/` some 0.2 seconds of one core. A photo that is not square costs less.
"""

from app.inference.analysis import Analyzer
from app.inference.errors import PriceError
from app.inference.maps.localization import Inference, Model

MILLION = 1e6
PATCHES = 4  # CCRM splits a photo into this many patches.
PAMR_PASSES = 10


def price_of(analyzer: Analyzer) -> float:
    """Return the price of all results that the models of an analyzer give of a photo."""
    options, pixels = analyzer.options, 0.0
    for cam in analyzer.cams:
        if options.conditional:
            pixels += _pixels(cam, *Inference().views(cam.card))  # The scores are those of the card's views.
            rounds = options.inference.options().rounds
            pixels += (1 + PATCHES * rounds) * _pixels(cam, *options.inference.views(cam.card))
        else:
            pixels += _pixels(cam, *options.inference.views(cam.card))
    if analyzer.segmenter:
        pixels += _pixels(analyzer.segmenter, *analyzer.mask_views)
    if options.refine == "pamr":
        refined = [*analyzer.cams[:1], *([analyzer.segmenter] if analyzer.segmenter else [])]
        pixels += sum(PAMR_PASSES * _pixels(model, (1.0,), False) for model in refined)
    return pixels / MILLION


def check_price(analyzer: Analyzer, limit: float, photos: int = 1) -> None:
    """Raise PriceError where a request of so many photos costs more than the limit."""
    price = photos * price_of(analyzer)
    if price > limit:
        raise PriceError(
            f"this request costs {price:.1f} million pixels through the networks; the limit is {limit:g}. Ask for fewer photos or "
            f"scales, smaller scales, no mirroring, fewer models in fuse=, or inference=plain; or raise TAG2MASK_MAX_PRICE where the service is "
            f"yours.",
            price=round(price, 1),
            limit=limit,
        )


def _pixels(model: Model, scales: tuple[float, ...], flip: bool) -> float:
    """Return the most pixels that a model is given for these views of a photo."""
    return sum((model.card.preferred_size * scale) ** 2 for scale in scales) * (2 if flip else 1)
