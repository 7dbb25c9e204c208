"""The rules of the house that a machine can read: who may import whom, who may type a label, what a file may be called.

Everything but one test reads the source (`ast`), so nothing of torch or ONNX Runtime is loaded here.
"""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest

from app.runtime.workers.forking import IMPORTED

ROOT = Path(__file__).resolve().parents[1]

# What serving may import: the standard library, `app`, and the dependencies of pyproject.toml under their import names.
SERVING = {
    "contourpy",
    "fastapi",
    "fastapi_offline",
    "isal",
    "numpy",
    "PIL",
    "pillow_heif",
    "prometheus_client",
    "pycocotools",
    "pydantic",
    "pydantic_settings",
    "python_multipart",
    "redis",
    "shapely",
    "starlette",
    "tqdm",
    "urllib3",
    "uvicorn",
}
ENGINE = "onnxruntime"
# What the extra `cluster` brings, for one room alone.
CLUSTER = "app.cluster"
OF_CLUSTER = {"pyarrow", "ray"}
# What the extra `traces` brings, for one file alone.
TRACES, OF_TRACES = "app.guard.traces", {"opentelemetry"}
NEVER_IN_APP = ("torch", "torchvision", "lightning", "lightning_fabric", "onnx", "onnxscript", "training")

# The room of `app` that turns bytes into pixels and back, and holds the rules over arrays: it serves training as well, so it
# knows no HTTP, and only its engine knows ONNX Runtime.
SHARED = "app.inference"
SHARED_MAY_IMPORT = {"contourpy", "isal", "numpy", "PIL", "pillow_heif", "pycocotools", "pydantic", "shapely"}
# Rooms of training that run an exported file, or check one.
MAY_USE_ENGINE = ("training.__main__", "training.export", "training.masks", "training.pipeline")
# The only room that reads masks; all other rooms train on tags alone. The pipeline calls its measuring.
BEING_WRITTEN = {"partial", "target", "file", "zipfile", "buffer"}  # The first two are what `whole_file` gives.
READS_MASKS = "training.masks"
# Corrected masks are masks too: of training, the same room alone reads them.
CORRECTIONS = "app.inference.label_maps.corrections"
MAY_IMPORT_MASKS = ("training.__main__", "training.masks", "training.pipeline")
# Imports point one way: a room imports from itself and from the rooms named here. A room is a folder of a package or, where
# the package holds a single file of that name, the file. What is not named (`__main__`, `main`) may import all of its package.
ROOMS = {
    "app.inference": set(),
    "app.runtime": {"app.inference"},
    "app.http": {"app.inference", "app.runtime"},
    "app.protocols": {"app.inference", "app.runtime", "app.http"},
    "app.guard": {"app.inference", "app.runtime", "app.http"},
    "app.batch": {"app.inference", "app.runtime", "app.http"},
    "app.cluster": {"app.inference", "app.runtime", "app.http", "app.batch", "app.guard", "app.main"},
    "training.config": {"training.label_rules"},
    "training.label_rules": {"training.smoothing"},
    "training.checkpoint": set(),
    "training.smoothing": set(),
    "training.data": {"training.config"},
    "training.fit": {"training.config", "training.checkpoint", "training.data"},  # fit knows no method by name
    "training.backbones": {"training.checkpoint"},
    "training.methods": {"training.backbones", "training.checkpoint", "training.data", "training.config"},
    "training.segmenters": {"training.backbones"},
    "training.refinement": {
        *("training.methods", "training.backbones", "training.data", "training.config", "training.smoothing"),
    },
    "training.export": {"training.methods", "training.segmenters", "training.data", "training.config"},
    "training.authors": {
        *("training.config", "training.checkpoint", "training.data", "training.fit", "training.backbones"),
        *("training.methods", "training.segmenters", "training.refinement", "training.export", "training.label_rules"),
    },
    "training.stages": {
        *("training.config", "training.checkpoint", "training.data", "training.fit", "training.backbones"),
        *("training.methods", "training.segmenters", "training.refinement", "training.export", "training.label_rules"),
        "training.smoothing",
    },
    "training.masks": {
        *("training.config", "training.data", "training.refinement", "training.stages", "training.label_rules"),
        "training.smoothing",
    },
}
MOST_FILES_IN_A_ROOM = 16

# A literal is taken for a label where one of these words names what it is compared with, added to, assigned or passed with.
LABEL_WORD = re.compile(r"label|mask|ignore|class_ind|class_count|num_classes|classes", re.IGNORECASE)
LABEL_LITERALS = {20, 21, 255}
RANGE_LIMITS = {"clip", "clamp", "minimum", "maximum"}  # 255 there is the end of uint8, not a label

MEANINGLESS_NAMES = {"utils", "util", "misc", "helpers", "helper", "common", "core", "models"}
ADDRESS_OR_MACHINE_PATH = re.compile(
    r"""https?://[^\s"')]*(?:pypi|pythonhosted|npmjs|debian\.org)  # a package registry
    | --(?:extra-)?index-url                                      # or the choice of one
    | (?<![\w.$}~-])/(?:home|root|Users|work|mnt|farm|tmp)/\w     # an absolute path of one machine""",
    re.VERBOSE,
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {
    module_name(path): path for package in ("app", "training") for path in sorted((ROOT / package).rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8"), str(path)) for name, path in SOURCES.items()}


def imported_names(name: str) -> Iterator[str]:
    """Every module that `name` imports, wherever the import stands; `from a import b` gives `a.b` where that is a module."""
    package = name if SOURCES[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, base] if base else parent)
            for alias in node.names:
                yield f"{base}.{alias.name}" if f"{base}.{alias.name}" in SOURCES else base


IMPORTS = {name: sorted(set(imported_names(name))) for name in SOURCES}


def modules_of(package: str) -> list[str]:
    return [name for name in SOURCES if name == package or name.startswith(f"{package}.")]


def third_party(name: str) -> set[str]:
    roots = {imported.split(".")[0] for imported in IMPORTS[name]}
    return roots - sys.stdlib_module_names - {"app", "training", "__future__"}


def test_app_imports_only_what_serving_installs() -> None:
    offences = [
        f"{name} imports {imported}"
        for name in modules_of("app")
        for imported in IMPORTS[name]
        if imported.split(".")[0] in NEVER_IN_APP
    ]
    offences += [
        f"{name} imports {root}"
        for name in modules_of("app")
        for root in third_party(name) - SERVING - {ENGINE} - brought_by_extras(name)
    ]
    assert not offences


def brought_by_extras(name: str) -> set[str]:
    """The packages that a module may import because it runs only where an extra is installed."""
    return OF_CLUSTER if room_of(name) == CLUSTER else OF_TRACES if name == TRACES else set()


def test_only_the_engine_and_the_quantizer_import_onnxruntime() -> None:
    """The engine runs models; the other takes ONNX Runtime's own tool to write integers."""
    assert {name for name in SOURCES if ENGINE in third_party(name)} == {"app.inference.engine", "training.export.int8"}


def test_app_loads_where_torch_and_training_cannot_be_imported() -> None:
    names = [name for name in modules_of("app") if not name.endswith("__main__") and not brought_by_extras(name)]
    program = f"""
import importlib, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {NEVER_IN_APP!r}:
            raise ImportError(name + " must not be imported by app")
sys.meta_path.insert(0, Refuse())
for name in {names!r}:
    importlib.import_module(name)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_models_load_before_the_web_framework_does() -> None:
    """The start takes as long as the longer of the two, and a worker process needs no framework."""
    for names in (["app.__main__"], IMPORTED):
        program = f"""
import importlib, sys
for name in {list(names)!r}:
    importlib.import_module(name)
assert not {{"fastapi", "uvicorn"}} & set(sys.modules), {names!r}
"""
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr


def room_of(name: str) -> str:
    """The room a module lies in: the first two parts of its name."""
    return ".".join(name.split(".")[:2])


def test_the_room_that_app_and_training_share_knows_no_http() -> None:
    engine = "app.inference.engine"
    offences = [
        f"{name} imports {root}"
        for name in modules_of(SHARED)
        for root in third_party(name) - SHARED_MAY_IMPORT - ({ENGINE} if name == engine else set())
    ]
    assert not offences


def test_training_uses_of_app_only_the_shared_room() -> None:
    offences = [
        f"{name} imports {imported}"
        for name in modules_of("training")
        for imported in IMPORTS[name]
        if imported.split(".")[0] == "app" and room_of(imported) != SHARED
    ]
    offences += [
        f"{name} imports the engine"
        for name in modules_of("training")
        if "app.inference.engine" in IMPORTS[name] and room_of(name) not in MAY_USE_ENGINE
    ]
    assert not offences


def test_only_the_measuring_room_reads_masks() -> None:
    readers = {name for name in SOURCES if "training.masks.ground_truth" in IMPORTS[name]}
    readers |= {name for name in modules_of("training") if CORRECTIONS in IMPORTS[name]}
    assert not {name for name in readers if room_of(name) != READS_MASKS}
    users = {name for name in SOURCES for imported in IMPORTS[name] if room_of(imported) == READS_MASKS}
    assert not {name for name in users if room_of(name) not in MAY_IMPORT_MASKS}


def test_the_masks_of_generated_scenes_are_drawn_only_for_measuring() -> None:
    def users_of(function: str) -> set[str]:
        return {
            name
            for name, tree in TREES.items()
            for node in ast.walk(tree)
            if function in (getattr(node, "id", None), getattr(node, "attr", None), getattr(node, "name", None))
        }

    drawers = users_of("render_mask") - {"training.data.scenes"}
    assert not {name for name in drawers if room_of(name) != READS_MASKS}
    assert users_of("exact_saliency") == {"training.data.scenes", "training.stages.saliency"}


def test_imports_point_one_way() -> None:
    offences = []
    for name in SOURCES:
        for imported in IMPORTS[name]:
            room, inside = room_of(name), imported.split(".")[0] == name.split(".")[0]
            upward = inside and room in ROOMS and room_of(imported) not in {room, *ROOMS[room]}
            if upward or (inside and imported.endswith(".__main__")):
                offences.append(f"{name} imports {imported}")
    assert not offences


def test_every_folder_is_a_room_with_a_rule_and_a_readable_number_of_files() -> None:
    folders = {path.parent for path in SOURCES.values()}
    sizes = {str(folder.relative_to(ROOT)): len(list(folder.glob("*.py"))) for folder in folders}
    assert not {name: size for name, size in sizes.items() if size > MOST_FILES_IN_A_ROOM}
    rooms = {room_of(name) for name, path in SOURCES.items() if len(path.relative_to(ROOT).parts) > 2}
    assert rooms - set(ROOMS) == {"training.pipeline"}  # the pipeline may import every other room


def test_files_are_written_whole_or_not_at_all() -> None:
    """A file that a killed run or a full disk left half must not count as a result: `app.inference.files.whole_file` writes all."""

    def writes(call: ast.Call) -> bool:
        function, values = getattr(call.func, "attr", ""), [*call.args, *(keyword.value for keyword in call.keywords)]
        opened = function == "open" and any(getattr(value, "value", None) in ("w", "wb") for value in values)
        written = opened or function in ("write_text", "write_bytes", "save", "savefig", "savez", "savez_compressed")
        named = {node.id for part in (call.func, *values) for node in ast.walk(part) if isinstance(node, ast.Name)}
        return written and not named & BEING_WRITTEN

    offences = [
        f"{SOURCES[name].relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"
        for name in (*modules_of("app"), *modules_of("training"))
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.Call) and writes(node)
    ]
    assert not offences


def test_only_the_analysis_chooses_views_classes_and_thresholds() -> None:
    """Whoever answers for a photo asks `app.inference.analysis`; training's stages make maps and labels of their own."""
    choosers = {"segment", "scale_cams", "conditional_cams", "label_from_maps", "present_classes", "tagged_classes"}
    offences = [
        f"{name} uses {alias.name}"
        for name, tree in TREES.items()
        if room_of(name) not in ("app.inference", "training.stages", "training.authors", "training.label_rules")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("app.inference")
        for alias in node.names
        if alias.name in choosers
    ]
    assert not offences


def test_no_import_cycles() -> None:
    done: set[str] = set()

    def cycle_from(name: str, path: tuple[str, ...]) -> tuple[str, ...] | None:
        if name in path:
            return (*path[path.index(name) :], name)
        if name in done:
            return None
        found = (cycle_from(imported, (*path, name)) for imported in IMPORTS[name] if imported in SOURCES)
        cycle = next((each for each in found if each), None)
        done.add(name)
        return cycle

    cycles = [" -> ".join(cycle) for name in SOURCES if (cycle := cycle_from(name, ()))]
    assert not cycles


def speaks_of_labels(*nodes: ast.AST | None) -> bool:
    """Whether a name, attribute or keyword inside `nodes` holds one of the words of LABEL_WORD."""
    for node in (inner for outer in nodes if outer for inner in ast.walk(outer)):
        word = getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "arg", None)
        if isinstance(word, str) and LABEL_WORD.search(word):
            return True
    return False


def is_literal(node: ast.AST | None, values: set[int]) -> TypeGuard[ast.Constant]:
    return isinstance(node, ast.Constant) and type(node.value) is int and node.value in values


def typed_labels(tree: ast.AST) -> Iterator[ast.expr | ast.stmt]:
    """The expressions that type a label: 20, 21 or 255 as one, and `+ 1` (on a label also `- 1`) between class index and label."""
    for node in ast.walk(tree):
        if is_literal(node, {21}):  # VOC's classes and the background: it has no other meaning here
            yield node
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
            shifted = node.left if is_literal(node.right, {1}) else node.right if is_literal(node.left, {1}) else None
            # `len(classes) - 1` is the last class index; it is `label - 1` that turns a label into one
            from_label = isinstance(shifted, ast.Name | ast.Attribute | ast.Subscript)
            if shifted and speaks_of_labels(shifted) and (isinstance(node.op, ast.Add) or from_label):
                yield node
        elif isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
            if any(is_literal(each, LABEL_LITERALS) for each in operands) and speaks_of_labels(*operands):
                yield node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if is_literal(node.value, LABEL_LITERALS) and speaks_of_labels(*targets):
                yield node
        elif isinstance(node, ast.keyword):
            if is_literal(node.value, LABEL_LITERALS) and LABEL_WORD.search(node.arg or ""):
                yield node.value
        elif isinstance(node, ast.arguments):
            named = [*node.posonlyargs, *node.args]
            pairs = [
                *zip(named[::-1], node.defaults[::-1], strict=False),
                *zip(node.kwonlyargs, node.kw_defaults, strict=True),
            ]
            yield from (
                value
                for arg, value in pairs
                if value and is_literal(value, LABEL_LITERALS) and LABEL_WORD.search(arg.arg)
            )
        elif isinstance(node, ast.Call):
            function = getattr(node.func, "attr", None) or getattr(node.func, "id", "")
            if function not in RANGE_LIMITS and any(is_literal(each, LABEL_LITERALS) for each in node.args):
                others = [each for each in node.args if not is_literal(each, LABEL_LITERALS)]
                if speaks_of_labels(node.func, *others):
                    yield node


def test_only_labels_py_types_a_label() -> None:
    offences = [
        f"{SOURCES[name].relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"
        for name, tree in TREES.items()
        if name != "app.inference.labels"
        for node in typed_labels(tree)
    ]
    assert not offences


@pytest.mark.parametrize(
    "line",
    [
        "label = class_index + 1",
        "index = labels[0] - 1",
        "channels = len(card.classes) + 1",
        "hits = mask == 255",
        "label_map[unsure] = 255",
        "mask = np.where(sure, label_map, 255)",
        "loss = cross_entropy(logits, target, ignore_index=255)",
        "def fit(num_classes=20): ...",
        "head = Conv(256, 21)",
    ],
)
def test_a_typed_label_is_found(line: str) -> None:
    assert list(typed_labels(ast.parse(line)))


@pytest.mark.parametrize(
    "line",
    [
        "epoch = epoch + 1",
        "last = len(card.classes) - 1",
        "grey = localization_map * 255",
        "overlay = np.clip(blend + mask_colour, 0, 255)",
        "log_every = 20",
        "white = image == 255",
    ],
)
def test_an_ordinary_number_is_not_taken_for_a_label(line: str) -> None:
    assert not list(typed_labels(ast.parse(line)))


def test_file_names_say_what_the_file_does() -> None:
    names = [path.relative_to(ROOT) for path in SOURCES.values()]
    assert not [str(name) for name in names if MEANINGLESS_NAMES & {name.stem, *name.parent.parts}]


def project_files() -> list[Path]:
    """The files that are, or would be, under version control; the whole tree but hidden folders where git cannot say."""
    if shutil.which("git") and (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]
    found = (path for path in ROOT.rglob("*") if path.is_file())
    return [path for path in found if not path.relative_to(ROOT).parts[0].startswith((".git", ".venv", "runs"))]


def test_no_file_names_a_registry_or_a_path_of_one_machine() -> None:
    offences = []
    for path in project_files():
        if path.stat().st_size > 1 << 20:
            continue
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:  # a picture or a model
            continue
        hits = ((number, ADDRESS_OR_MACHINE_PATH.search(line)) for number, line in enumerate(lines, start=1))
        offences += [f"{path.relative_to(ROOT)}:{number}: {hit[0]}" for number, hit in hits if hit]
    assert not offences


def requirement_names(requirements: list[str]) -> set[str]:
    return {
        re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0].lower().replace("_", "-") for requirement in requirements
    }


def test_every_requirement_has_one_exact_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = requirement_names(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        wanted |= requirement_names(extra)
    lines = [
        line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")
    ]
    assert not [line for line in lines if not re.fullmatch(r"[a-z0-9.-]+==[A-Za-z0-9.!]+", line)]
    assert wanted <= requirement_names(lines)
