"""The manifest for Kubernetes: KubeRay's schema takes it, Ray Serve its configuration, and its paths agree."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from fmrnet.deployment.ray_serve import Options

ROOT = Path(__file__).parents[1]
MANIFEST = ROOT / "docs" / "fmrnet-rayservice.yaml"
# Of ray-project/kuberay: helm-chart/kuberay-operator/crds/ray.io_rayservices.yaml
SCHEMA = Path(os.environ.get("KUBERAY_CRD", ROOT / "build" / "kuberay" / "ray.io_rayservices.yaml"))


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    return {one["kind"]: one for one in yaml.safe_load_all(MANIFEST.read_text())}


def closed(schema: Any) -> Any:
    """A schema that refuses what it does not name, which Kubernetes would drop without a word."""
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    found = {key: closed(value) for key, value in schema.items()}
    if "properties" in schema:
        found["properties"] = {key: closed(value) for key, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            found["additionalProperties"] = False
    return found


@pytest.mark.skipif(not SCHEMA.is_file(), reason="KUBERAY_CRD names no file of RayService's definition")
def test_kuberay_takes_it(manifest: dict[str, Any]) -> None:
    validation = pytest.importorskip("jsonschema", reason="fmrnet[ray] is not installed")
    definition = yaml.load(SCHEMA.read_text(), yaml.CSafeLoader)
    (version,) = (one for one in definition["spec"]["versions"] if one["name"] == "v1")
    schema = closed(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    service = manifest["RayService"]
    assert service["apiVersion"] == f"{definition['spec']['group']}/v1"
    validation.Draft202012Validator(schema).validate(service)
    service["spec"]["rayClusterConfig"]["headGroupSpec"]["rayStartParam"] = {}
    assert not validation.Draft202012Validator(schema).is_valid(service)


def test_its_paths_and_its_numbers_agree(manifest: dict[str, Any]) -> None:
    spec = manifest["RayService"]["spec"]
    (app,) = yaml.safe_load(spec["serveConfigV2"])["applications"]
    options = Options(**app["args"])
    (group,) = spec["rayClusterConfig"]["workerGroupSpecs"]
    pod = group["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {Path(one["mountPath"]): one["name"] for one in container["volumeMounts"]}
    volumes = {one["name"]: one for one in pod["volumes"]}
    (claim,) = {
        volumes[mounts[model.parent]]["persistentVolumeClaim"]["claimName"] for model in options.models
    }
    assert claim == manifest["PersistentVolumeClaim"]["metadata"]["name"]
    assert options.token_file is not None
    assert "secret" in volumes[mounts[options.token_file.parent]]
    assert container["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"
    assert options.max_replicas * options.cpus == group["maxReplicas"] * int(
        container["resources"]["limits"]["cpu"]
    )


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed; pip install 'fmrnet[ray]'")
def test_ray_takes_its_configuration() -> None:
    """In a process of its own, for Ray stays in one."""
    code = """
import sys, yaml
from ray.serve.schema import ServeDeploySchema
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary as build
from ray._common.utils import import_attr
(service,) = (one for one in yaml.safe_load_all(open(sys.argv[1])) if one["kind"] == "RayService")
(app,) = ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"])).applications
print(type(build(import_attr(app.import_path), app.args)).__name__)
"""
    run = subprocess.run([sys.executable, "-c", code, str(MANIFEST)], capture_output=True, text=True)
    assert run.stdout == "Application\n", run.stderr
