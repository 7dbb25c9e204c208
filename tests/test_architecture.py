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

ROOT = Path(__file__).resolve().parents[1]

# What serving may import: the standard library, `app`, and the dependencies of pyproject.toml under their import names.
SERVING = {
    "contourpy",
    "fastapi",
    "fastapi_offline",
    "numpy",
    "PIL",
    "pycocotools",
    "pydantic",
    "pydantic_settings",
    "python_multipart",
    "shapely",
    "starlette",
    "tqdm",
    "uvicorn",
}
ENGINE = "onnxruntime"
NEVER_IN_APP = ("torch", "torchvision", "lightning", "lightning_fabric", "onnx", "onnxscript", "training")

# The files of `app` that turn bytes into pixels and back, and hold the rules over arrays: they serve training as well, so
# they know neither HTTP nor ONNX Runtime.
SHARED = {
    *("class_conditional", "decode", "edam_rule", "encode", "errors", "fusion", "jpeg_file", "labels", "model_card"),
    *(
        "orientation",
        "pamr",
        "png_file",
        "postprocess",
        "predict",
        "pseudo_label",
        "preprocess",
        "quality",
        "segmentation",
        "tags",
    ),
}
SHARED_MAY_IMPORT = {"numpy", "PIL", "pycocotools", "pydantic"}
# Verbs of training that run an exported file, or check one.
MAY_USE_ENGINE = {f"training.{verb}" for verb in ("__main__", "evaluate", "export", "localize", "report", "sheet")}
# Verbs that measure against masks; every other one trains on tags alone.
MAY_READ_MASKS = {f"training.{verb}" for verb in ("evaluate", "report", "review", "sheet", "supervised")}
# Imports point one way: a module of the left part imports only from the parts on the right.
LAYERS = {
    "tables": set(),
    "config": {"config", "data", "tables"},
    "data": {"data", "tables"},
    "backbones": {"backbones", "checkpoint"},
    "methods": {"methods", "backbones", "checkpoint", "data", "config"},
    "segmenters": {"segmenters", "backbones", "mask_refinement_loss"},
    "fit": {"tables", "checkpoint", "data"},  # fit knows no method by name
}

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
        f"{name} imports {root}" for name in modules_of("app") for root in third_party(name) - SERVING - {ENGINE}
    ]
    assert not offences


def test_only_the_engine_imports_onnxruntime() -> None:
    assert [name for name in SOURCES if ENGINE in third_party(name)] == ["app.engine"]


def test_app_loads_where_torch_and_training_cannot_be_imported() -> None:
    names = [name for name in modules_of("app") if not name.endswith("__main__")]
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


def test_the_shared_files_of_app_know_neither_http_nor_the_engine() -> None:
    shared = [name for name in modules_of("app") if name.removeprefix("app.") in SHARED]
    offences = [f"{name} imports {root}" for name in shared for root in third_party(name) - SHARED_MAY_IMPORT]
    offences += [
        f"{name} imports {imported}"
        for name in shared
        for imported in IMPORTS[name]
        if imported.startswith("app.") and imported.removeprefix("app.") not in SHARED
    ]
    assert not offences


def test_training_uses_of_app_only_the_shared_files() -> None:
    offences = []
    for name in modules_of("training"):
        for imported in IMPORTS[name]:
            if imported.split(".")[0] != "app" or imported.removeprefix("app.") in SHARED:
                continue
            if imported == "app.engine" and name in MAY_USE_ENGINE:
                continue
            offences.append(f"{name} imports {imported}")
    assert not offences


def test_only_the_measuring_verbs_read_masks() -> None:
    readers = {name for name in SOURCES if "training.data.ground_truth" in IMPORTS[name]}
    assert not readers - MAY_READ_MASKS


def test_the_masks_of_generated_scenes_are_drawn_only_for_measuring() -> None:
    def users_of(function: str) -> set[str]:
        return {
            name
            for name, tree in TREES.items()
            for node in ast.walk(tree)
            if function in (getattr(node, "id", None), getattr(node, "attr", None), getattr(node, "name", None))
        }

    drawn = {"training.data.ground_truth", "training.data.scenes"}
    assert not users_of("render_mask") - MAY_READ_MASKS - drawn
    assert users_of("exact_saliency") == {"training.data.scenes", "training.saliency"}


def test_imports_of_training_point_one_way() -> None:
    offences = []
    for name in modules_of("training"):
        part = name.split(".")[1] if "." in name else ""
        for imported in IMPORTS[name]:
            if not imported.startswith("training."):
                continue
            if imported.endswith("__main__") or (part in LAYERS and imported.split(".")[1] not in LAYERS[part]):
                offences.append(f"{name} imports {imported}")
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
        if name != "app.labels"
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
