"""The manifests of deploy/kubernetes against the schemas of Kubernetes' API, as kustomize joins them."""

import copy
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "deploy" / "kubernetes"
VERSION = "1.31"  # The oldest Kubernetes whose schemas are checked; what is used here has been stable since 1.23.
OWN_SCHEMAS = ("keda.sh/", "ray.io/")  # Kinds that others add to Kubernetes.

pytestmark = [
    pytest.mark.environment("kubernetes"),
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed"),
]


def rendered(name: str) -> list[dict[str, Any]]:
    done = subprocess.run(["kubectl", "kustomize", MANIFESTS / name], capture_output=True, text=True, check=True)
    return list(yaml.safe_load_all(done.stdout))


def named(manifests: list[dict[str, Any]], kind: str, name: str = "tag2mask") -> dict[str, Any]:
    (found,) = (each for each in manifests if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


@pytest.fixture(scope="module")
def validate() -> ModuleType:
    """The package that carries the schemas."""
    return pytest.importorskip("kubernetes_validate", reason="tests/environments/kubernetes.txt is not installed")


@pytest.fixture(scope="module")
def base() -> list[dict[str, Any]]:
    return rendered("base")


@pytest.mark.parametrize("name", ["base", "keda"])
def test_manifests_are_what_the_api_takes(name: str, validate: ModuleType) -> None:
    manifests = [each for each in rendered(name) if not each["apiVersion"].startswith(OWN_SCHEMAS)]
    assert len(manifests) >= 8
    for manifest in manifests:
        validate.validate(manifest, VERSION, strict=True)


def test_the_ray_service_asks_for_what_the_api_takes(base: list[dict[str, Any]], validate: ModuleType) -> None:
    """Ray's own kind has no schema here; the pods that it asks for have one."""
    text = (MANIFESTS / "ray" / "rayservice.yaml").read_text(encoding="utf-8")
    service, policy = yaml.safe_load_all(text)
    validate.validate(policy, VERSION, strict=True)
    cluster = service["spec"]["rayClusterConfig"]
    (workers,) = cluster["workerGroupSpecs"]
    for group in (cluster["headGroupSpec"], workers):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}} | group["template"]
        validate.validate(pod | {"metadata": {"name": "ray"} | pod["metadata"]}, VERSION, strict=True)
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    cpus, most = application["args"]["cpus"], application["args"]["max_replicas"]
    cores = int(workers["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    assert most == workers["maxReplicas"] * (cores // cpus)
    redis = application["args"]["settings"]["store"].removeprefix("redis://").partition(":")[0]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= (
        named(base, "Deployment", redis)["spec"]["template"]["metadata"]["labels"].items()
    )
    allowed = policy["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"]
    assert allowed == workers["template"]["metadata"]["labels"]


def test_a_wrong_manifest_is_found(base: list[dict[str, Any]], validate: ModuleType) -> None:
    deployment = copy.deepcopy(named(base, "Deployment"))
    deployment["spec"]["template"]["spec"]["containers"][0]["image"] = 5
    with pytest.raises(validate.ValidationError):
        validate.validate(deployment, VERSION, strict=True)


def test_parts_find_each_other(base: list[dict[str, Any]]) -> None:
    for name in ("tag2mask", "tag2mask-redis"):
        deployment, service = named(base, "Deployment", name), named(base, "Service", name)
        pod = deployment["spec"]["template"]
        assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        assert deployment["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        ports = {port["name"] for container in pod["spec"]["containers"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    labels = named(base, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert named(base, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"].items() <= labels.items()
    pod = named(base, "Deployment")["spec"]["template"]["spec"]
    claims = {each["persistentVolumeClaim"]["claimName"] for each in pod["volumes"] if "persistentVolumeClaim" in each}
    assert claims == {named(base, "PersistentVolumeClaim", "tag2mask-models")["metadata"]["name"]}
    (settings,) = (each for each in base if each["kind"] == "ConfigMap")
    assert pod["containers"][0]["envFrom"][0]["configMapRef"]["name"] == settings["metadata"]["name"]
    assert settings["data"]["TAG2MASK_STORE"] == "redis://tag2mask-redis:6379"


def test_one_of_the_two_scales(base: list[dict[str, Any]]) -> None:
    assert named(base, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == "tag2mask"
    with_keda = rendered("keda")
    assert named(with_keda, "ScaledObject")["spec"]["scaleTargetRef"] == {"name": "tag2mask"}
    assert not [each for each in with_keda if each["kind"] == "HorizontalPodAutoscaler"]


def test_an_empty_volume_gets_the_models_and_another_is_left_alone(base: list[dict[str, Any]], tmp_path: Path) -> None:
    pod = named(base, "Deployment")["spec"]["template"]["spec"]
    (initial,) = pod["initContainers"]
    script = initial["command"][-1]
    volume, image = tmp_path / "volume", tmp_path / "image"
    volume.mkdir()
    for model in ("cam/3", "deeplab/8"):
        (image / model).mkdir(parents=True)
        (image / model / "model.onnx").write_text(model)
    (image / "README.md").write_text("no model")
    script = script.replace("/srv/tag2mask/models", str(image)).replace("/models/", f"{volume}/")

    def seed() -> list[str]:
        subprocess.run(
            [*initial["command"][:2], script], env={"HOSTNAME": "pod-1", "PATH": "/usr/bin:/bin"}, check=True
        )
        return sorted(str(path.relative_to(volume)) for path in volume.rglob("*") if path.is_file())

    assert seed() == ["cam/3/model.onnx", "deeplab/8/model.onnx"]
    shutil.rmtree(volume / "cam")
    assert seed() == ["deeplab/8/model.onnx"]
