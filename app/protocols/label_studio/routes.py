"""Label Studio's ML backend protocol gives the masks of photos as pre-annotations.

The address a user enters there (Settings > Model) is http://HOST:PORT/label-studio; Label Studio appends /health, /setup,
/predict and /webhook to it (`label_studio/ml/api_connector.py` of https://github.com/HumanSignal/label-studio).
"Start Training" there comes as a webhook of that name; what it does is in `app.protocols.label_studio.annotations`.

The regions are those of `GET /segment`, in the project's own labels. Where a task's data has `tags`, a list or names
separated by commas, those of them that are classes are the only ones that get a region; where all of them are, what looks
like another class becomes one of these. A prediction's score says how far the methods agree where several cam models of
the segmenter's classes are served: sorted by it, the doubtful photos come first.
"""

import asyncio
import logging
import re
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter
from pydantic import BaseModel, FailFast, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from app.http.request.receive import HEAD_BYTES, receive_body
from app.inference.errors import (
    ClientLeftError,
    ParameterError,
    QueueFullError,
    ServiceError,
    StoppingError,
    UnsupportedTypeError,
)
from app.inference.image.kinds import kind_of
from app.protocols.label_studio.annotations import project_of, queue_annotations
from app.protocols.label_studio.config import read_tools
from app.protocols.label_studio.host import Host
from app.protocols.label_studio.predict import ID_CHARACTERS, Plan, failed_task, predict_task, version_of
from app.runtime.model_store import pin
from app.runtime.service import Service, service_of

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/label-studio", include_in_schema=False)

MAX_CONFIG_CHARACTERS = 1_000_000
MAX_TASKS = 2000  # One request may hold this many tasks; Label Studio sends some hundred.
MAX_SAID_CHARACTERS = 300  # A refusal takes this many characters of an address at most.
START_TRAINING = "START_TRAINING"
JSON_TYPE = "application/json"

LabelConfig = Annotated[str, Field(max_length=MAX_CONFIG_CHARACTERS)]
Body = TypeVar("Body", bound=BaseModel)


class TaskBody(BaseModel):
    """It is a task; its label config says under which keys of `data` the photos are."""

    id: int | str | None = None
    data: dict[str, Any]

    @property
    def tags(self) -> list[str]:
        """The tags are those of the task's data; there are none where it has none."""
        tags = self.data.get("tags")
        if isinstance(tags, dict):  # Exports write choices so.
            tags = [entry for named in tags.values() for entry in (named if isinstance(named, list) else [named])]
        entries = tags.replace(";", ",").split(",") if isinstance(tags, str) else tags if isinstance(tags, list) else []
        return [entry.strip() for entry in entries if isinstance(entry, str) and entry.strip()]


class PredictBody(BaseModel):
    """It holds what is read of Label Studio's request for predictions."""

    tasks: Annotated[list[TaskBody], FailFast(), Field(max_length=MAX_TASKS)]
    label_config: LabelConfig


class SetupBody(BaseModel):
    """It holds what is read of the request that connects a project; the access token it brings is not read."""

    label_config: LabelConfig = Field(alias="schema")


class WebhookBody(BaseModel):
    """It holds what is read of the news of a project; only "Start Training" needs to say which."""

    action: str
    project: Any = None

    @property
    def project_id(self) -> int | None:
        """The project has this number; it is None where that is not said."""
        number = self.project.get("id") if isinstance(self.project, dict) else None
        return number if isinstance(number, int) else None


@router.get("/health")
async def health(request: Request) -> Response:
    service_of(request).check_ready()
    return JSONResponse({"status": "UP", "model_class": "tag2mask"})


@router.post("/setup")
@router.post("/setup/{said}")
async def setup(request: Request, said: str | None = None) -> Response:
    """Connect a project. Where Label Studio does not let the service in, the refusal is `said` (see `say_in_address`)."""
    service = service_of(request)
    body = await read_body(request, SetupBody)
    segmenter = service.models.catalog.choose("segmentation", None)
    try:
        await run_in_threadpool(Host.of(service.settings).check_access)
    except ServiceError as error:
        return say_in_address("setup", said, error)
    try:
        await run_in_threadpool(_plan_of, service, body)
    except ParameterError as error:  # A project may get its model before its labels.
        logger.warning("a Label Studio project is connected that gets no predictions as it is: %s", error)
    return JSONResponse({"model_version": version_of(segmenter)})


@router.post("/predict")
async def predict(request: Request) -> Response:
    service = service_of(request)
    host = Host.of(service.settings)
    body = await read_body(request, PredictBody)
    plan = await run_in_threadpool(_plan_of, service, body)
    request.state.model = pin(plan.segmenter)
    host = await run_in_threadpool(host.signed_in)
    results = await predict_tasks(request, host, plan, body.tasks)
    return JSONResponse({"results": results, "model_version": version_of(plan.segmenter)})


@router.put("/task")
async def make_task(request: Request) -> Response:
    """Make a task of a photo that the service keeps (`image=ID`) in the configured project, and say where it is opened.

    It is PUT because pages of other sites cannot send that.
    """
    service = service_of(request)
    host = Host.of(service.settings)
    project = project_of(service.settings)
    upload = await service.at_store(service.uploads.get, request.query_params.get("image", "").lower())
    host = await run_in_threadpool(host.signed_in)
    name = upload.name or f"{upload.id[:ID_CHARACTERS]}.{kind_of(upload.data[:HEAD_BYTES])}".lower()
    return JSONResponse({"url": await run_in_threadpool(host.add_task, project, name, upload.data)})


def say_in_address(path: str, said: str | None, error: ServiceError) -> Response:
    """Send Label Studio on to an address that says the refusal; raise it where that is the address that was asked.

    Label Studio's page shows neither the body nor the log of a service that refuses; it shows the status and the address.
    """
    if said is not None:
        raise error
    logger.warning("Label Studio's request for /%s is refused: %s", path, error)
    return RedirectResponse(f"{path}/{as_address(error)}", HTTPStatus.TEMPORARY_REDIRECT)


def as_address(error: ServiceError) -> str:
    """Return the words of an error as they are readable in an address, which percents are not."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", str(error)).strip("-")[:MAX_SAID_CHARACTERS]


def _plan_of(service: Service, body: PredictBody | SetupBody) -> Plan:
    """Return how the photos of a project are worked on. Raises ParameterError where its config draws no class."""
    plan = Plan.of(service.models.catalog, read_tools(body.label_config), service.settings.max_image_pixels)
    plan.check()
    return plan


@router.post("/webhook")
@router.post("/webhook/{said}")
async def webhook(request: Request, said: str | None = None) -> Response:
    """Fetch the project's annotations where its user starts the training; other news change nothing.

    A page of another site can send JSON only under another type, which is refused.
    """
    body = await read_body(request, WebhookBody)
    if body.action != START_TRAINING:
        return JSONResponse({"status": "ignored"})
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON_TYPE:
        raise UnsupportedTypeError(f"{START_TRAINING} is taken with Content-Type: {JSON_TYPE} only.")
    try:
        await run_in_threadpool(queue_annotations, service_of(request).settings, body.project_id)
    except ServiceError as error:
        return say_in_address("webhook", said, error)
    logger.info("the annotations of Label Studio's project wait in the folder of corrections")
    return JSONResponse({"status": "queued"})


async def read_body(request: Request, kind: type[Body]) -> Body:
    """Return the JSON of a request, read by a thread. Raises UploadTooLargeError, and ParameterError that repeats no value."""
    settings = service_of(request).settings
    limit = min(settings.max_json_bytes, settings.max_upload_bytes)
    data = await receive_body(request, limit, "TAG2MASK_MAX_JSON_BYTES")
    try:
        return await run_in_threadpool(kind.model_validate_json, data)
    except ValidationError as error:
        found = error.errors(include_input=False, include_context=False, include_url=False)
        named = [(".".join(map(str, entry["loc"])) or "body", entry["msg"]) for entry in found]
        message = "; ".join(f"{name}: {reason}" for name, reason in named)[:1000]
        raise ParameterError(f"the body is not what Label Studio sends: {message}.", parameter=named[0][0]) from None


async def predict_tasks(request: Request, host: Host, plan: Plan, tasks: list[TaskBody]) -> list[dict[str, Any]]:
    """Return the predictions of a batch: as many tasks at a time as there are workers, until the client leaves.

    A task whose photo cannot be had gets an empty one.
    """
    pool = service_of(request).pool
    places = asyncio.Semaphore(pool.workers)
    left = asyncio.Event()

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        left.set()

    async def gone() -> None:
        await left.wait()

    async def predict_one(task: TaskBody) -> dict[str, Any]:
        photos = []
        for view in plan.views(task.data):
            if not left.is_set():
                photos.append((view, await run_in_threadpool(host.fetch, view.image, task.id)))
        while not left.is_set():
            try:
                return await pool.run(predict_task, plan, photos, task.tags, gone=gone)
            except QueueFullError as error:  # The photos of other clients fill the queue; those of the batch wait here.
                await asyncio.sleep(error.retry_after_seconds)
        raise ClientLeftError("Label Studio left while its tasks were worked on.")

    async def answer(task: TaskBody) -> dict[str, Any]:
        async with places:
            try:
                return await predict_one(task)
            except (ClientLeftError, StoppingError):
                raise
            except ServiceError as error:
                logger.warning("Label Studio's task %.80r gets no prediction: %s", task.id, error)
                return failed_task(plan, error)

    watching = asyncio.ensure_future(watch())
    answers = [asyncio.ensure_future(answer(task)) for task in tasks]
    try:
        return list(await asyncio.gather(*answers))
    finally:
        for future in (watching, *answers):
            future.cancel()
