"""Of the catalog that is served, the models that a request names are chosen, or the defaults."""

from collections.abc import Iterator
from contextlib import contextmanager

from app.http.request.parameters import ALL_MODELS, MAX_FUSED, AnalyzeParameters, CamParameters, PhotoParameters
from app.inference.class_names import find_class
from app.inference.errors import ParameterError, ServiceError
from app.runtime.loaded_model import LoadedModel
from app.runtime.model_store import Catalog, Task, pin


def choose_engines(catalog: Catalog, task: Task, parameters: PhotoParameters) -> tuple[LoadedModel, ...]:
    """Return the model a request names, or the default; with `fuse=` all it names. Raises ParameterError where their classes differ."""
    names, least = parameters.fused_names(), 2
    if not names:
        return (catalog.choose(task, parameters.model),)
    if names == (ALL_MODELS,):
        least = 1  # A single model that knows the class answers alone.
        engines = of_one_class_list(catalog.newest(task), catalog.choose(task, None), parameters)
    else:
        with naming("fuse"):
            engines = list({pin(engine): engine for engine in (catalog.choose(task, name) for name in names)}.values())
    if not least <= len(engines) <= MAX_FUSED:
        raise ParameterError(
            f"fuse= names {len(engines)} different models; 2 to {MAX_FUSED} are fused. GET /models lists those served.",
            parameter="fuse",
            limit=MAX_FUSED,
        )
    for engine in engines[1:]:
        if engine.card.classes != engines[0].card.classes:
            raise ParameterError(
                f"{pin(engine)} and {pin(engines[0])} know different classes, so their maps cannot be fused. Name models "
                f"of the same classes.",
                parameter="fuse",
            )
    return tuple(engines)


def of_one_class_list(
    engines: list[LoadedModel], default: LoadedModel, parameters: PhotoParameters
) -> list[LoadedModel]:
    """Return the models that know all classes a request names, and have one list of classes: where there are several such lists, the
    default model's, else the one that most of them have.
    """

    def knows(engine: LoadedModel) -> bool:
        card, wanted = engine.card, list(parameters.options().tags or ())
        if isinstance(parameters, CamParameters) and not parameters.names_all(card):
            wanted.append(parameters.class_name)
        return all(find_class(name, card.classes, card.synonyms) is not None for name in wanted)

    able = [engine for engine in engines if knows(engine)] or engines
    lists = [engine.card.classes for engine in able]
    chosen = default.card.classes if default.card.classes in lists else max(lists, key=lists.count)
    return [engine for engine in able if engine.card.classes == chosen]


def models_left_out(
    catalog: Catalog, parameters: PhotoParameters, fused: tuple[LoadedModel, ...]
) -> tuple[LoadedModel, ...]:
    """Return the models that `fuse=all` leaves out, since they know other classes than those that are fused."""
    if parameters.fused_names() != (ALL_MODELS,):
        return ()
    return tuple(engine for engine in catalog.newest("cam") if engine not in fused)


def choose_segmenter(catalog: Catalog, parameters: AnalyzeParameters, cam: LoadedModel) -> LoadedModel | None:
    """Return the segmentation model of `/analyze`. Where none is named it is the default, or one with the classes of the cam model where
    the default has others; it is None where none is served.
    """
    if parameters.segmenter is None:
        default = catalog.defaults.get("segmentation")
        if default is None or default.card.classes == cam.card.classes:
            return default
        alike = (engine for engine in catalog.newest("segmentation") if engine.card.classes == cam.card.classes)
        return next(alike, default)
    with naming("segmenter"):
        return catalog.choose("segmentation", parameters.segmenter)


@contextmanager
def naming(parameter: str) -> Iterator[None]:
    """Say that it was this parameter that named what is refused."""
    try:
        yield
    except ServiceError as error:
        error.details["parameter"] = parameter
        raise
