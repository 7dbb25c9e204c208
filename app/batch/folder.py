"""`python -m app label` makes a data set with masks of a folder of photos, and a list of what to look at first.

OUT/JPEGImages/NAME.jpg           the photo, upright
OUT/SegmentationClass/NAME.png    its label map, indexed, PASCAL VOC's palette; 255 is "ignore"
OUT/ImageSets/Segmentation/train.txt, classes.txt
OUT/annotations.json              the same as COCO instances, one per class and photo, regions as run lengths
OUT/overlays/NAME.jpg             the label map over the photo
OUT/yolo/                         the same as YOLO's segmentation text (`app.batch.yolo`)
OUT/review.csv                    every photo with its estimated quality (`app.inference.label_maps.quality`), worst first
OUT/review.html                   the same to look through, to accept, tag anew or reject (`app.batch.review`)
OUT/choices.csv                   what was decided there, where somebody put it: tags that hold instead, photos left out
OUT/refused.csv                   photos that could not be labelled, and why
OUT/records/NAME.json, label.json what is done and by which models: the same command goes on where it stopped

The lists name the photos that are there now and could be labelled. What was made of photos that are gone stays, corrected
masks among it, and is said; `--prune` removes it, by the records: what a kill left without one stays.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from app.batch.data_set import files_of, write_csv, write_data_set, writing
from app.batch.labellers import Labeller, Maker
from app.batch.photo_content import content_of
from app.batch.photos import FolderPhoto, find_photos, known_tags
from app.batch.yolo import write_yolo, yolo_files
from app.inference.errors import DataError, ServerGoneError, Tag2MaskError
from app.inference.files.choices import FILE as CHOICES
from app.inference.files.choices import Choice, read_choices
from app.inference.files.file_names import shown
from app.inference.files.tags import read_tags
from app.inference.files.whole_file import write_whole

NAMED = 3  # A sentence names this many of the photos it is about.


def label_folder(
    photos: Path,
    out: Path,
    labeller: Labeller,
    tags: Path | None = None,
    workers: int = 1,
    prune: bool = False,
    choices: Path | None = None,
    skip: bool = False,
) -> tuple[str, bool]:
    """Label every photo under `photos` into `out` by threads of this process; `label_all` says the rest."""
    return label_all(photos, out, labeller, Threads(labeller, workers), tags, prune, choices, skip)


def label_all(
    photos: Path,
    out: Path,
    maker: Maker,
    crew: "Crew",
    tags: Path | None,
    prune: bool,
    choices: Path | None,
    skip: bool,
) -> tuple[str, bool]:
    """Label every photo under `photos` into `out`; returns what was done, and whether every photo could be labelled.

    What is done already is left as it is, unless the photo or its tags have changed; with `prune` the files of photos that
    are gone are removed. `choices` is a list of what was decided about photos; OUT/choices.csv where left out and there.
    With `skip` a photo with a tag that is no class is refused and the others go on. Raises DataError for a folder without
    photos, tags that are no classes, or an `out` that was made otherwise.
    """
    with writing(out):
        decided = read_choices(choices or out / CHOICES) if choices or (out / CHOICES).is_file() else {}
        found = find_photos(photos, out, None if tags is None else read_tags(tags))
        there = [chosen(task, decided) for task in found.tasks]
        tasks, refused = known_tags(there, maker.classes, skip)
        refused |= found.left_out
        total = len(tasks) + len(refused)
        check_settings(out, maker, tagged=tags is not None)
        gone = find_gone(photos, out, there, prune)
        if prune:
            for path in (path for name in gone for path in (*files_of(out, name), *yolo_files(out, name))):
                path.unlink(missing_ok=True)
        todo = [task for task in tasks if not is_done(out, task)]
        with tqdm(total=len(tasks), initial=len(tasks) - len(todo), unit="photo") as bar:
            for task, error in crew.finish(todo, out):
                if error is not None:
                    refused[task.path] = str(error)
                bar.update()
        names = [task.name for task in tasks if task.path not in refused]
        write_data_set(out, names, maker, decided)
        listed = [(shown(path), reason) for path, reason in sorted(refused.items())]
        write_csv(out / "refused.csv", ("photo", "reason"), listed)
        lines = [f"{len(names)} of {total} photos labelled into {out}; review.html shows them, worst first"]
        lines += said_of_choices(decided, names)
        untagged = sum(task.tags == () for task in tasks)
        if untagged:
            lines.append(f"photos that the tags give no class: {untagged}; their labels are background everywhere")
        if gone:
            named = f"{len(gone)} ({', '.join(gone[:NAMED])}{', ...' if len(gone) > NAMED else ''})"
            remedy = (
                "what was made of them is removed"
                if prune
                else f"{out} keeps what was made of them; --prune removes it"
            )
            lines.append(f"photos that are no longer in {photos}: {named}; {remedy}")
        others = [shown(path.relative_to(photos)) for path in found.others if tags is None or not path.samefile(tags)]
        if others:
            named = f"{len(others)} ({', '.join(others[:NAMED])}{', ...' if len(others) > NAMED else ''})"
            lines.append(f"files that are no photos, left alone: {named}")
        lines += [f"refused {photo}: {reason}" for photo, reason in listed]
        return "\n".join(lines), not refused


def chosen(task: FolderPhoto, decided: Mapping[str, Choice]) -> FolderPhoto:
    """Return the task with the tags that somebody decided on."""
    choice = decided.get(task.name)
    return task if choice is None or choice.kind != "retag" else replace(task, tags=choice.tags)


def said_of_choices(decided: Mapping[str, Choice], names: list[str]) -> list[str]:
    """Return what became of the choices, in sentences."""
    counts = Counter(choice.kind for name, choice in decided.items() if name in names)
    lines = [f"choices: {', '.join(f'{count} {kind}' for kind, count in sorted(counts.items()))}"] if counts else []
    strange = sorted(decided.keys() - set(names))
    if strange:
        lines.append(f"choices about photos that are not here: {len(strange)} ({', '.join(strange[:NAMED])})")
    return lines


def find_gone(photos: Path, out: Path, tasks: list[FolderPhoto], prune: bool) -> list[str]:
    """Return the names that have a record and no photo any more.

    Raises DataError where PHOTOS or --out must be mistaken: where none of the photos has a record, and, before files are
    removed (`prune`), where every photo that has one has changed since.
    """
    # Some disks hold Dog.json and dog.json to be one file, so that files are compared, not names.
    files = {file_of(path) for task in tasks if (path := record_path(out, task)).is_file()}
    others = [path for path in sorted((out / "records").glob("*.json")) if file_of(path) not in files]
    gone = [path.stem for path in others if read_record(path)]
    kept = ((task, record) for task in tasks if (record := read_record(record_path(out, task))))
    if not gone or any(not prune or record["stamp"] == stamp_of(task) for task, record in kept):
        return gone
    if prune:
        raise DataError(
            f"--prune would remove from {out} what was made of {len(gone)} photos (first: {gone[0]}), and none of the others "
            f"is in {photos} as it was labelled; name the right folder, or leave out --prune, which removes nothing"
        )
    raise DataError(
        f"{out} holds the labels of {len(gone)} photos (first: {gone[0]}), none of which is in {photos}; choose another "
        f"--out, or delete this one"
    )


def file_of(path: Path) -> tuple[int, int]:
    """Return which file it is, under whatever name."""
    status = path.stat()
    return status.st_dev, status.st_ino


def read_record(path: Path) -> dict[str, Any]:
    """Return a photo's record; empty where this command did not write the file, or wrote it under another name."""
    try:
        record = json.loads(path.read_text())
        known = record["name"].casefold() == path.stem.casefold() and {"stamp", "tags", "regions"} <= set(record)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
    return record if known else {}


def is_done(out: Path, task: FolderPhoto) -> bool:
    """Tell whether the photo, as it is now and with these tags, has a record."""
    record = read_record(record_path(out, task))
    tags = None if task.tags is None else list(task.tags)
    try:
        return bool(record) and record["tags"] == tags and record["stamp"] == stamp_of(task)
    except OSError:  # The photo is gone since it was found.
        return False


def stamp_of(task: FolderPhoto) -> list[int]:
    """Return what the photo's file looks like from outside."""
    status = task.path.stat()
    return [status.st_size, status.st_mtime_ns]


def check_settings(out: Path, maker: Maker, tagged: bool) -> None:
    """Note what labels the folder. Raises DataError where it was begun with something else."""
    path = out / "label.json"
    settings = noted_settings(str(out), path.read_text(encoding="utf-8") if path.is_file() else None, maker, tagged)
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation", "overlays", "records"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    write_whole(path, settings.encode())


def noted_settings(out: str, noted: str | None, maker: Maker, tagged: bool) -> str:
    """Return the content of label.json. Raises DataError where what is `noted` there so far says something else."""
    settings = {**maker.provenance, "classes": list(maker.classes), "tagged": tagged}
    try:
        begun = settings if noted is None else dict(json.loads(noted))
    except (ValueError, TypeError):
        raise DataError(
            f"{out}/label.json is not what this command wrote; choose another --out, or remove that file"
        ) from None
    other = [key for key in sorted({*begun, *settings}) if begun.get(key) != settings.get(key)]
    if other:
        raise DataError(
            f"{out} was begun with {said_of(begun, other)}, not {said_of(settings, other)}; choose another --out"
        )
    return json.dumps(settings, indent=1)


def said_of(settings: dict[str, Any], keys: list[str]) -> str:
    """Return the settings of these keys in few words."""
    tagged = "--tags" if settings.get("tagged") else "without --tags"
    return ", ".join(tagged if key == "tagged" else f"{key} {json.dumps(settings.get(key))}" for key in keys)


class Crew(Protocol):
    """A crew labels many photos."""

    def finish(self, todo: list[FolderPhoto], out: Path) -> Iterator[tuple[FolderPhoto, Tag2MaskError | None]]:
        """Label photos and yield each with why it was refused, as they are done. Raises OSError where `out` cannot be
        written, and Tag2MaskError where no photo can be labelled any more.
        """


@dataclass(frozen=True)
class Threads:
    """This crew labels by threads of this process, a few photos ahead of each other."""

    labeller: Labeller
    workers: int

    def finish(self, todo: list[FolderPhoto], out: Path) -> Iterator[tuple[FolderPhoto, Tag2MaskError | None]]:
        """Do what `Crew` says. Raises ServerGoneError."""
        waiting: dict[Future[None], FolderPhoto] = {}
        tasks = iter(todo)
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                while True:
                    for task in islice(tasks, 2 * self.workers - len(waiting)):
                        waiting[pool.submit(label_one, task, out, self.labeller)] = task
                    if not waiting:
                        return
                    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        task = waiting.pop(future)
                        try:
                            future.result()
                        except ServerGoneError:
                            raise
                        except Tag2MaskError as error:
                            yield task, error
                        else:
                            yield task, None
            finally:  # The command was stopped, or the server is gone: what is begun ends, what waits does not begin.
                for other in waiting:
                    other.cancel()


def label_one(task: FolderPhoto, out: Path, labeller: Labeller) -> None:
    """Label one photo and write its files, its record last: what has a record is whole."""
    try:
        stamp, data = stamp_of(task), task.path.read_bytes()
    except OSError as error:
        raise DataError(f"it cannot be read ({error.strerror}).") from None
    content = content_of(task.name, shown(task.path), stamp, task.tags, data, labeller)
    copy, mask, overlaid, written = files_of(out, task.name)
    write_whole(copy, content.photo)
    write_whole(mask, content.mask)
    write_whole(overlaid, content.overlay)
    write_yolo(out, task.name, copy, content.yolo)
    write_whole(written, content.record)


def record_path(out: Path, task: FolderPhoto) -> Path:
    """Return where a photo's record is."""
    return files_of(out, task.name)[-1]
