"""A run's folder notes of its stages with which settings each was begun, and whether it is done.

OUT/state.json                 the stages that one process did, or several together
OUT/shards/STAGE-I-of-N.json   the same of one shard of a stage: every process has its own file, so none waits for another
"""

import json
from pathlib import Path
from typing import Any

from app.inference.files.whole_file import write_whole
from training.stages.shard import WHOLE, Shard

STATE = "state.json"
SHARDS = "shards"
Note = dict[str, Any]  # It holds {"settings": the tables the stage depends on, "done": bool}.


def written(out: Path) -> set[Path]:
    """Return what a run's folder holds besides the notes."""
    return {path for path in out.rglob("*") if path.is_file() and path.name != STATE and path.parent.name != SHARDS}


def read_notes(out: Path, stage: str) -> dict[Shard, Note]:
    """Return the notes of a stage: of the whole, and of each shard."""
    noted = _read(out / STATE)
    notes = {WHOLE: noted[stage]} if stage in noted else {}
    for path in sorted((out / SHARDS).glob(f"{stage}-*-of-*.json")):
        index, count = path.stem.removeprefix(f"{stage}-").split("-of-")
        notes[Shard(int(index), int(count))] = _read(path)
    return notes


def write_note(out: Path, stage: str, shard: Shard, note: Note | None) -> None:
    """Note where a stage, or a shard of it, stands; forget it with None."""
    if shard != WHOLE:
        path = out / SHARDS / f"{stage}-{shard.index}-of-{shard.count}.json"
        path.unlink(missing_ok=True) if note is None else write_whole(path, json.dumps(note, indent=1))
        return
    others = {name: each for name, each in _read(out / STATE).items() if name != stage}
    write_whole(out / STATE, json.dumps(others if note is None else others | {stage: note}, indent=1))


def all_done(notes: dict[Shard, Note]) -> bool:
    """Tell whether the whole is done, or every shard of one way to divide it."""
    done = {shard for shard, note in notes.items() if note["done"]}
    return any(all(Shard(index, count) in done for index in range(count)) for count in {each.count for each in done})


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}
