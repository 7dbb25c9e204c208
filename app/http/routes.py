"""The endpoints choose the models and the format; a worker then decodes, predicts and encodes."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Query
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from app.http import formats
from app.http.api_docs import operations
from app.http.job import Job
from app.http.price import check_price
from app.http.reply import answers
from app.http.reply.caching import entity_tag, matches
from app.http.reply.describe import classes_reply, models_reply
from app.http.reply.problems import problem_of
from app.http.reply.schemas import ClassesReply, ModelsReply, Status
from app.http.request.choose_models import choose_engines, choose_segmenter, models_left_out
from app.http.request.negotiate import choose_format
from app.http.request.parameters import (
    AnalyzeParameters,
    CamParameters,
    KeptAnalyzeParameters,
    KeptCamParameters,
    KeptPseudoLabelParameters,
    KeptSegmentParameters,
    ModelParameters,
    PhotoParameters,
    PseudoLabelParameters,
    SegmentParameters,
)
from app.http.request.photos import obtain_uploads, set_image_cookie
from app.http.request.query import NoParameters, refuse_repeated
from app.http.request.receive import wait_for_disconnect
from app.inference.analysis import Analyzer
from app.inference.errors import ParameterError, UploadError
from app.inference.maps.localization import class_index
from app.inference.stopwatch import Stopwatch
from app.runtime.model_store import Task, pin
from app.runtime.service import service_of
from app.runtime.upload_store import Upload

Asked = TypeVar("Asked", bound=PhotoParameters)

router = APIRouter(dependencies=[Depends(refuse_repeated)])


@router.post("/segment", **operations.POST_SEGMENT)
async def segment_upload(request: Request, parameters: Annotated[SegmentParameters, Query()]) -> Response:
    job = await prepare(request, "segmentation", parameters, formats.mask_words(), json_first=True)
    response = await run(request, answers.answer_segment, job)
    set_image_cookie(request, response, job.upload)
    return response


@router.get("/segment", **operations.GET_SEGMENT)
async def segment_kept(request: Request, parameters: Annotated[KeptSegmentParameters, Query()]) -> Response:
    job = await prepare(request, "segmentation", parameters, formats.mask_words(), json_first=True)
    return await run(request, answers.answer_segment, job)


@router.post("/cam", **operations.POST_CAM)
async def cam_upload(request: Request, parameters: Annotated[CamParameters, Query()]) -> Response:
    return await cam(request, parameters)


@router.get("/cam", **operations.GET_CAM)
async def cam_kept(request: Request, parameters: Annotated[KeptCamParameters, Query()]) -> Response:
    return await cam(request, parameters)


@router.post("/pseudo-label", **operations.POST_PSEUDO_LABEL)
async def pseudo_label_upload(request: Request, parameters: Annotated[PseudoLabelParameters, Query()]) -> Response:
    return await pseudo_label(request, parameters)


@router.get("/pseudo-label", **operations.GET_PSEUDO_LABEL)
async def pseudo_label_kept(request: Request, parameters: Annotated[KeptPseudoLabelParameters, Query()]) -> Response:
    return await pseudo_label(request, parameters)


@router.post("/analyze", **operations.POST_ANALYZE)
async def analyze_upload(request: Request, parameters: Annotated[AnalyzeParameters, Query()]) -> Response:
    job = await prepare(request, "cam", parameters, (formats.NPZ.word,), json_first=True)
    response = await run(request, answers.answer_analyze, job)
    set_image_cookie(request, response, job.upload)
    return response


@router.get("/analyze", **operations.GET_ANALYZE)
async def analyze_kept(request: Request, parameters: Annotated[KeptAnalyzeParameters, Query()]) -> Response:
    job = await prepare(request, "cam", parameters, (formats.NPZ.word,), json_first=True)
    return await run(request, answers.answer_analyze, job)


@router.get("/models", **operations.MODELS)
async def models(request: Request, parameters: Annotated[NoParameters, Query()]) -> ModelsReply:
    return models_reply(service_of(request).models.catalog)


@router.get("/classes", **operations.CLASSES)
async def classes(request: Request, parameters: Annotated[ModelParameters, Query()]) -> ClassesReply:
    catalog = service_of(request).models.catalog
    if parameters.model is not None:
        return classes_reply(catalog.find(parameters.model))
    return classes_reply(catalog.defaults.get("cam") or catalog.defaults["segmentation"])


@router.get("/healthz", **operations.HEALTHZ)
async def healthz(parameters: Annotated[NoParameters, Query()]) -> Status:
    return Status(status="alive")


@router.get("/readyz", **operations.READYZ)
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
    return await run(request, answers.answer_cams if everything else answers.answer_cam, job)


async def pseudo_label(request: Request, parameters: PseudoLabelParameters) -> Response:
    """Answer `/pseudo-label` of an upload or of a kept photo."""
    job = await prepare(request, "cam", parameters, formats.mask_words())
    return await run(request, answers.answer_pseudo_label, job)


async def prepare(
    request: Request,
    task: Task,
    parameters: Asked,
    words: tuple[str, ...],
    *,
    json_first: bool = False,
    index: int | None = None,
) -> Job[Asked]:
    """Refuse what can be refused without the photo, in order of cost; then receive the photo, and return its job.

    `words` are the formats besides JSON that the endpoint answers in, `json_first` makes JSON the default. `index` is that of
    the one class that is asked for.
    """
    service = service_of(request)
    catalog = service.models.catalog
    engines = choose_engines(catalog, task, parameters)
    segmenter = choose_segmenter(catalog, parameters, engines[0]) if isinstance(parameters, AnalyzeParameters) else None
    left_out = models_left_out(catalog, parameters, engines)
    used = (*engines, *((segmenter,) if segmenter else ()))
    request.state.model = ",".join(map(pin, engines))
    available = (formats.JSON.word, *words) if json_first else formats.with_json(words)
    word = choose_format(parameters.format, ", ".join(request.headers.getlist("accept")), available)
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
    files = [engine.sha256 for engine in (*used, *left_out, *linked)]

    def job_of(upload: Upload) -> Job[Asked]:
        named = {**asked, "name": upload.name} if word == "coco" else asked
        etag = entity_tag(root_path, request.url.path, upload.id, files, word, named, weak=word == "json")
        return Job(
            upload,
            parameters,
            analyzer,
            cams,
            segmenter,
            catalog.defaults,
            word,
            service.settings,
            root_path,
            etag,
            index,
            left_out=left_out,
        )

    first, *others = map(job_of, uploads)
    first.others = tuple(others)
    return first


async def run(request: Request, answer: Callable[[Job[Asked]], Response], job: Job[Asked]) -> Response:
    """Have a worker do the work; a photo that could be worked on is kept for the requests that follow.

    A GET whose client has the result already is told so. Several photos are answered one after the other, as a JSON list in
    their order, in which a photo that cannot be worked on has its problem.
    """
    service = service_of(request)
    if request.method in ("GET", "HEAD") and matches(job.etag, request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=job.caching)

    request.state.stopwatch = Stopwatch()

    def keep(upload: Upload, views: dict[str, bytes]) -> None:
        service.uploads.put(upload)
        service.maps.put_all(views)

    async def run_one(each: Job[Asked]) -> Response:
        if each.cams:
            each.kept = await service.at_store(service.maps.known, each.view_keys)
        left = partial(wait_for_disconnect, request)
        response, stopwatch, kept = await service.pool.run(each.answered_by, answer, gone=left)
        await service.at_store(keep, each.upload, kept)
        request.state.stopwatch.include(stopwatch)
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
