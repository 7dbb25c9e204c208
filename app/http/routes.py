"""The endpoints: choose the models and the format, then decode, predict and encode on a worker."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from app.http import answers, api_docs, formats, negotiate
from app.http.caching import entity_tag, matches
from app.http.describe import classes_reply, models_reply
from app.http.job import Job
from app.http.parameters import (
    ALL_MODELS,
    MAX_FUSED,
    AnalyzeParameters,
    CamParameters,
    KeptAnalyzeParameters,
    KeptCamParameters,
    KeptImage,
    KeptPseudoLabelParameters,
    KeptSegmentParameters,
    ModelParameters,
    NoParameters,
    PhotoParameters,
    PseudoLabelParameters,
    SegmentParameters,
)
from app.http.price import check_price
from app.http.problems import problem_of
from app.http.receive import receive_photos, wait_for_disconnect
from app.http.schemas import ClassesReply, ModelsReply, Status
from app.inference.analysis import Analyzer
from app.inference.class_names import find_class
from app.inference.errors import MissingImageError, ParameterError, ServiceError, UploadError
from app.inference.maps.localization import class_index
from app.runtime.loaded_model import LoadedModel
from app.runtime.model_store import Catalog, Task, pin
from app.runtime.service import service_of
from app.runtime.upload_store import Upload

IMAGE_COOKIE = "tag2mask_image"


def refuse_repeated(request: Request) -> None:
    """Refuse a query parameter given twice: only one of the values could be heeded."""
    seen: set[str] = set()
    for name, _ in request.query_params.multi_items():
        if name in seen:
            raise ParameterError(f"the query parameter {name[:80]!r} is given more than once.", parameter=name[:80])
        seen.add(name)


router = APIRouter(dependencies=[Depends(refuse_repeated)])


@router.post("/segment", **api_docs.POST_SEGMENT)
async def segment_upload(request: Request, parameters: Annotated[SegmentParameters, Query()]) -> Response:
    job = await prepare(request, "segmentation", parameters, formats.mask_words(), json_first=True)
    response = await run(request, answers.answer_segment, job, parameters)
    set_image_cookie(request, response, job.upload)
    return response


@router.get("/segment", **api_docs.GET_SEGMENT)
async def segment_kept(request: Request, parameters: Annotated[KeptSegmentParameters, Query()]) -> Response:
    job = await prepare(request, "segmentation", parameters, formats.mask_words(), json_first=True)
    return await run(request, answers.answer_segment, job, parameters)


@router.post("/cam", **api_docs.POST_CAM)
async def cam_upload(request: Request, parameters: Annotated[CamParameters, Query()]) -> Response:
    return await cam(request, parameters)


@router.get("/cam", **api_docs.GET_CAM)
async def cam_kept(request: Request, parameters: Annotated[KeptCamParameters, Query()]) -> Response:
    return await cam(request, parameters)


@router.post("/pseudo-label", **api_docs.POST_PSEUDO_LABEL)
async def pseudo_label_upload(request: Request, parameters: Annotated[PseudoLabelParameters, Query()]) -> Response:
    return await pseudo_label(request, parameters)


@router.get("/pseudo-label", **api_docs.GET_PSEUDO_LABEL)
async def pseudo_label_kept(request: Request, parameters: Annotated[KeptPseudoLabelParameters, Query()]) -> Response:
    return await pseudo_label(request, parameters)


@router.post("/analyze", **api_docs.POST_ANALYZE)
async def analyze_upload(request: Request, parameters: Annotated[AnalyzeParameters, Query()]) -> Response:
    job = await prepare(request, "cam", parameters, (formats.NPZ.word,), json_first=True)
    response = await run(request, answers.answer_analyze, job, parameters)
    set_image_cookie(request, response, job.upload)
    return response


@router.get("/analyze", **api_docs.GET_ANALYZE)
async def analyze_kept(request: Request, parameters: Annotated[KeptAnalyzeParameters, Query()]) -> Response:
    job = await prepare(request, "cam", parameters, (formats.NPZ.word,), json_first=True)
    return await run(request, answers.answer_analyze, job, parameters)


@router.get("/models", **api_docs.MODELS)
async def models(request: Request, parameters: Annotated[NoParameters, Query()]) -> ModelsReply:
    return models_reply(service_of(request).models.catalog)


@router.get("/classes", **api_docs.CLASSES)
async def classes(request: Request, parameters: Annotated[ModelParameters, Query()]) -> ClassesReply:
    catalog = service_of(request).models.catalog
    if parameters.model is not None:
        return classes_reply(catalog.find(parameters.model))
    return classes_reply(catalog.defaults.get("cam") or catalog.defaults["segmentation"])


@router.get("/healthz", **api_docs.HEALTHZ)
async def healthz(parameters: Annotated[NoParameters, Query()]) -> Status:
    return Status(status="alive")


@router.get("/readyz", **api_docs.READYZ)
async def readyz(request: Request, parameters: Annotated[NoParameters, Query()]) -> Status:
    service_of(request).check_ready()
    return Status(status="ready")


def answer_head(router: APIRouter) -> None:
    """Let every GET of a router answer HEAD too, as RFC 9110 asks."""
    for route in list(router.routes):
        if isinstance(route, APIRoute) and "GET" in (route.methods or ()):
            router.add_api_route(route.path, route.endpoint, methods=["HEAD"], include_in_schema=False)


answer_head(router)


async def cam(request: Request, parameters: CamParameters) -> Response:
    """Answer `/cam` of one class, or of all."""
    card = choose_engines(service_of(request).models.catalog, "cam", parameters)[0].card
    everything = parameters.names_all(card)
    words = formats.all_maps_words() if everything else formats.map_words()
    index = None if everything else class_index(card, parameters.class_name)
    job = await prepare(request, "cam", parameters, words, json_first=everything, index=index)
    return await run(request, answers.answer_cams if everything else answers.answer_cam, job, parameters)


async def pseudo_label(request: Request, parameters: PseudoLabelParameters) -> Response:
    """Answer `/pseudo-label` of an upload or of a kept photo."""
    job = await prepare(request, "cam", parameters, formats.mask_words())
    return await run(request, answers.answer_pseudo_label, job, parameters)


async def prepare(
    request: Request,
    task: Task,
    parameters: PhotoParameters,
    words: tuple[str, ...],
    *,
    json_first: bool = False,
    index: int | None = None,
) -> Job:
    """Everything that can be refused without the photo, in order of cost; then the photo itself.

    `words` are the formats besides JSON that the endpoint answers in, `json_first` makes JSON the default. `index` is that of
    the one class that is asked for.
    """
    service = service_of(request)
    catalog = service.models.catalog
    engines = choose_engines(catalog, task, parameters)
    segmenter = choose_segmenter(catalog, parameters, engines[0]) if isinstance(parameters, AnalyzeParameters) else None
    used = (*engines, *((segmenter,) if segmenter else ()))
    request.state.model = ",".join(map(pin, engines))
    available = (formats.JSON.word, *words) if json_first else formats.with_json(words)
    word = negotiate.choose_format(parameters.format, ", ".join(request.headers.getlist("accept")), available)
    cams, segmenter = ((), engines[0]) if task == "segmentation" else (engines, segmenter)
    analyzer = Analyzer(parameters.options(), cams, segmenter)
    check_price(analyzer, service.settings.max_price)
    service.pool.check_room()
    uploads = await obtain_uploads(request, parameters)
    if len(uploads) > 1 and formats.media_type(word) != formats.JSON.media_type:
        raise ParameterError(
            f"{len(uploads)} photos are answered as a list of {', '.join(formats.json_words())}, not as {word}. Ask for one of "
            f"these, or send the photos one at a time.",
            parameter="format",
        )
    check_price(analyzer, service.settings.max_price, len(uploads))
    request.state.image = ",".join(upload.id for upload in uploads)
    root_path = request.scope.get("root_path", "")
    asked = parameters.model_dump(mode="json", by_alias=True, exclude={"image", "model", "format"})
    linked = [catalog.defaults[other] for other in sorted(catalog.defaults)]
    files = [engine.sha256 for engine in (*used, *linked)]

    def job_of(upload: Upload) -> Job:
        named = {**asked, "name": upload.name} if word == "coco" else asked
        etag = entity_tag(root_path, request.url.path, upload.id, files, word, named, weak=word == "json")
        return Job(upload, analyzer, cams, segmenter, catalog.defaults, word, service.settings, root_path, etag, index)

    first, *others = map(job_of, uploads)
    first.others = tuple(others)
    return first


def choose_engines(catalog: Catalog, task: Task, parameters: PhotoParameters) -> tuple[LoadedModel, ...]:
    """The model a request names, or the default; with `fuse=` all it names. Raises ParameterError where these differ."""
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
    """Of all models those that know the classes a request names, and the same others: of several such lists the default
    model's, else the one that most of them know.
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


def choose_segmenter(catalog: Catalog, parameters: AnalyzeParameters, cam: LoadedModel) -> LoadedModel | None:
    """The segmentation model of `/analyze`; where none is named the default, or one that knows the classes of the cam model
    where the default does not; None where none is served.
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


async def obtain_uploads(request: Request, parameters: PhotoParameters) -> list[Upload]:
    """Return the photos in the body; for a GET the one kept under `image=`, else under the cookie."""
    service = service_of(request)
    if not isinstance(parameters, KeptImage):
        received = await receive_photos(request, service.settings.max_upload_bytes)
        return [await run_in_threadpool(Upload.of, data, name) for name, data in received]
    return [await kept_upload(request, parameters)]


async def kept_upload(request: Request, parameters: KeptImage) -> Upload:
    """Return the photo kept under `image=`, else under the cookie. Raises MissingImageError, UnknownImageError, StoreGoneError."""
    image_id = parameters.image or request.cookies.get(IMAGE_COOKIE)
    if not image_id:
        raise MissingImageError(
            "no photo is named. Give image=ID (`image.id` in the reply, or the header X-Image-Id, of the POST that sent "
            "it), keep the cookie that POST /segment sets, or send the photo itself with POST.",
            parameter="image",
        )
    return await run_in_threadpool(service_of(request).uploads.get, image_id.lower())


async def run(request: Request, answer: Callable[..., Response], job: Job, *arguments: Any) -> Response:
    """Have a worker do the work; a photo that could be worked on is kept for the requests that follow.

    A GET whose client has the result already is told so. Several photos are answered one after the other, as a JSON list in
    their order, in which a photo that cannot be worked on has its problem.
    """
    service = service_of(request)
    if request.method in ("GET", "HEAD") and matches(job.etag, request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=job.caching)

    def keep(upload: Upload, views: dict[str, bytes]) -> None:
        service.uploads.put(upload)
        service.maps.put_all(views)

    async def run_one(each: Job) -> Response:
        if each.cams:
            each.kept = await run_in_threadpool(service.maps.known, each.view_keys)
        left = partial(wait_for_disconnect, request)
        response, milliseconds, kept = await service.pool.run(each.answered_by, answer, *arguments, gone=left)
        await run_in_threadpool(keep, each.upload, kept)
        stages = request.state.stages = getattr(request.state, "stages", {})
        for stage, spent in milliseconds.items():
            stages[stage] = stages.get(stage, 0.0) + spent
        return response

    if not job.others:
        return await run_one(job)
    replies: list[bytes] = []
    for each in (job, *job.others):
        try:
            replies.append(bytes((await run_one(each)).body))
        except UploadError as error:
            replies.append(problem_of(error).model_dump_json().encode())
    return Response(b"[" + b",".join(replies) + b"]", media_type=formats.JSON.media_type)


def set_image_cookie(request: Request, response: Response, upload: Upload) -> None:
    """Let a client that keeps cookies leave out `image=` in what follows."""
    max_age = int(service_of(request).settings.upload_ttl_seconds)
    secure = request.url.scheme == "https"
    path = request.scope.get("root_path") or "/"
    response.set_cookie(
        IMAGE_COOKIE, upload.id, max_age=max_age, path=path, secure=secure, httponly=True, samesite="lax"
    )
