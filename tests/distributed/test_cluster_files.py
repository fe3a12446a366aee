"""The files of cluster/ and ray-config.yaml satisfy schemas and linters, and agree with this repository."""

import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import jsonschema
import pytest
import yaml
from nodes import DEADLINE

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # raised by these packages
    import kubernetes_validate
    from ray.autoscaler._private.util import prepare_config, validate_config

from mat2spec.config import WorkersConfig

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
BIN = Path(sys.executable).parent
KUBERNETES = "1.34"
LAUNCHER = yaml.safe_load((ROOT / "ray-config.yaml").read_text())
KUBERAY = yaml.safe_load(Path(__file__).with_name("kuberay.yaml").read_text())
MANIFESTS = {path.name: yaml.safe_load(path.read_text()) for path in sorted(CLUSTER.glob("kuberay-*.yaml"))}
OPTION = re.compile(r"--[\w-]+")
TORCH_INDEX = re.compile(r"https://download\.pytorch\.org/whl/(?:cpu|cu\d+)")
LOCKED = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)


@pytest.fixture(scope="module")
def launcher() -> dict:
    """Configuration of the launcher with its provider's defaults, as `ray up` fills them in."""
    return prepare_config(yaml.safe_load((ROOT / "ray-config.yaml").read_text()))


def test_launcher_accepts_the_configuration(launcher):
    validate_config(launcher)


@pytest.mark.parametrize(
    "change",
    [
        {"idle_timeout": 5},
        {"max_workers": 0},
        {"head_node_type": "nosuch"},
        {"available_node_types": {**LAUNCHER["available_node_types"], "cpu": {"node_config": {}}}},
    ],
)
def test_launcher_would_refuse_a_mistake(launcher, change):
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        validate_config(launcher | change)


def test_every_limit_of_autoscaling_is_set():
    kinds = LAUNCHER["available_node_types"]
    assert {"min_workers", "max_workers"} <= set.intersection(*(set(kind) for kind in kinds.values()))
    workers = [kind for name, kind in kinds.items() if name != LAUNCHER["head_node_type"]]
    assert LAUNCHER["max_workers"] == sum(kind["max_workers"] for kind in workers)
    assert {bool(kind["resources"].get("GPU")) for kind in workers} == {True, False}, (
        "CPU nodes build graphs, GPU nodes hold the model"
    )
    assert kinds[LAUNCHER["head_node_type"]]["resources"]["CPU"] == 0


@pytest.mark.parametrize("part", ["head", "worker"])
def test_launched_nodes_start_in_the_checkout_with_its_python_and_the_token(part):
    (start,) = [command for command in LAUNCHER[f"{part}_start_ray_commands"] if "ray start" in command]
    steps = [shlex.split(step) for step in start.split("&&")]
    assert steps[:2] == [["cd", "~/mat2spec"], [".", ".venv/bin/activate"]]
    assert steps[-1][:3] == ["RAY_AUTH_MODE=token", "ray", "start"]
    assert LAUNCHER["file_mounts"]["~/mat2spec"] == "."
    assert LAUNCHER["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert subprocess.run(["bash", "-n", "-c", start], check=False).returncode == 0


def test_ray_start_knows_every_option_that_is_used():
    help_text = subprocess.run([BIN / "ray", "start", "--help"], capture_output=True, text=True, check=True).stdout
    commands = [
        *LAUNCHER["head_start_ray_commands"],
        *LAUNCHER["worker_start_ray_commands"],
        (CLUSTER / "slurm.sh").read_text(),
    ]
    calls = [call for command in commands for call in re.findall(r"ray start ([^\n]*)", command)]
    used = {option for call in calls for option in OPTION.findall(call)}
    used |= {
        f"--{name}" for cluster in clusters().values() for group in groups(cluster) for name in group["rayStartParams"]
    }
    assert {"--head", "--address", "--num-cpus", "--autoscaling-config"} <= used <= set(OPTION.findall(help_text))


def clusters() -> dict[str, dict]:
    """Specification of the Ray cluster in each manifest that has one."""
    specs = {name: manifest["spec"].get("rayClusterSpec", manifest["spec"]) for name, manifest in MANIFESTS.items()}
    return {name: spec for name, spec in specs.items() if "headGroupSpec" in spec}


def groups(cluster: dict) -> list[dict]:
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def check_pods(template: dict) -> None:
    """Check a pod template against Kubernetes' own schema, which allows no unknown field."""
    kubernetes_validate.validate(
        {"apiVersion": "v1", "kind": "PodTemplate", "template": template}, KUBERNETES, strict=True
    )


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifest_has_the_fields_of_its_kind(name):
    manifest = MANIFESTS[name]
    if manifest["kind"] in KUBERAY:
        jsonschema.validate(manifest, KUBERAY[manifest["kind"]] | {"definitions": KUBERAY["definitions"]})
        for group in groups(clusters()[name]):
            check_pods(group["template"])
    else:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_manifests_with_a_mistake_are_refused():
    name = "kuberay-cluster.yaml"
    broken = yaml.safe_load((CLUSTER / name).read_text())
    broken["spec"]["workerGroupSpecs"][0]["maxReplica"] = 3
    with pytest.raises(jsonschema.ValidationError, match="maxReplica"):
        jsonschema.validate(broken, KUBERAY["RayCluster"] | {"definitions": KUBERAY["definitions"]})
    template = broken["spec"]["headGroupSpec"]["template"]
    template["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(kubernetes_validate.ValidationError, match="volumeMount"):
        check_pods(template)


@pytest.mark.parametrize("name", clusters())
def test_kubernetes_cluster_asks_for_a_token_shares_its_runs_and_has_the_locked_ray(name):
    cluster = clusters()[name]
    assert cluster["authOptions"]["mode"] == "token"
    assert cluster["rayVersion"] == LOCKED["ray"]
    claim = MANIFESTS["kuberay-storage.yaml"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for group in groups(cluster):
        (container,) = group["template"]["spec"]["containers"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in group["template"]["spec"]["volumes"]}
        assert mounts == {"runs": "/runs", "shm": "/dev/shm"}
        assert volumes["runs"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


def test_job_of_the_manifest_is_one_of_this_repository():
    job = MANIFESTS["kuberay-screen.yaml"]["spec"]
    python, script, config, option, output = shlex.split(job["entrypoint"])
    assert (python, option) == ("python", "--output")
    assert (ROOT / script).exists()
    assert (ROOT / config).exists()
    assert output.startswith("/runs/")
    assert job["backoffLimit"] > 0, "a retry resumes the run"


def test_dockerfile_passes_hadolint_and_copies_what_exists():
    dockerfile = (CLUSTER / "Dockerfile").read_text()
    linted = subprocess.run([BIN / "hadolint", CLUSTER / "Dockerfile"], capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout
    copied = {
        source
        for line in re.findall(r"^COPY (?:--\S+ )*(.*) \S+$", dockerfile, re.MULTILINE)
        for source in line.split()
    }
    assert not {source for source in copied if not (ROOT / source).exists()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert {"mat2spec", "configs", "jobs"} <= copied
    assert {
        project["project"]["readme"],
        *project["project"]["license-files"],
        "pyproject.toml",
        "constraints.txt",
    } <= copied
    (extras,) = re.findall(r"--editable '\.\[(.*)\]'", dockerfile)
    assert set(extras.split(",")) <= set(project["project"]["optional-dependencies"])
    (python,) = re.findall(r"^ARG PYTHON=(.*)$", dockerfile, re.MULTILINE)
    assert project["project"]["requires-python"] == f">={python}"
    assert "RAY_AUTH_MODE=token" in dockerfile
    assert "RAY_AUTH_TOKEN" not in dockerfile


def test_torch_comes_from_indexes_for_cpu_and_one_cuda():
    texts = [path.read_text() for path in (CLUSTER / "Dockerfile", ROOT / "ray-config.yaml")]
    named = {url.rsplit("/", 1)[1] for text in texts for url in TORCH_INDEX.findall(text)}
    assert len(named) == 2, "one build for CPUs, one for GPUs, the same everywhere"
    images = {
        c["image"]
        for spec in clusters().values()
        for group in groups(spec)
        for c in group["template"]["spec"]["containers"]
    }
    assert {image.rsplit(":", 1)[1] for image in images} == named


def test_slurm_script_passes_shellcheck():
    linted = subprocess.run([BIN / "shellcheck", CLUSTER / "slurm.sh"], capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout


SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""

JOB = """
import os, sys, time
import ray
ray.init(log_to_driver=False)
try:
    nodes = sum(node["Alive"] for node in ray.nodes())
    print(sys.argv[1:], nodes, ray.cluster_resources()["CPU"], os.environ["RAY_AUTH_MODE"], flush=True)
    time.sleep(float(sys.argv[1]))
except KeyboardInterrupt:
    sys.exit(9)
"""


def test_slurm_script_starts_its_nodes_runs_the_job_and_exits_with_its_code(tmp_path):
    """On this machine, with an srun that runs its command directly; SLURM itself is not tested."""
    for name, content in {"srun": SRUN, "scontrol": "#!/bin/sh\nhostname\necho another\n", "job.py": JOB}.items():
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    allocation = {
        "SUBMIT_DIR": ROOT,
        "JOB_NODELIST": "a,b",
        "JOB_ID": os.getpid(),
        "JOB_NUM_NODES": 2,
        "CPUS_PER_TASK": 3,
    }
    environment = os.environ | {f"SLURM_{name}": str(value) for name, value in allocation.items()}
    environment |= {"PATH": f"{tmp_path}{os.pathsep}{BIN}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", CLUSTER / "slurm.sh", tmp_path / "job.py", "600"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        line = process.stdout.readline()
        process.send_signal(signal.SIGINT)  # what --signal=B:INT sends when the time is nearly up
        _, err = process.communicate(timeout=DEADLINE)  # the job would sleep for 600 s
    assert line == "['600'] 2 6.0 token\n", err
    assert process.returncode == 9, err
    assert "error:" not in err


def test_slurm_script_without_a_job_prints_its_usage():
    done = subprocess.run(["bash", CLUSTER / "slurm.sh"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_page_on_clusters_names_what_exists():
    page = (ROOT / "docs" / "clusters.md").read_text()
    named = set(re.findall(r"(?<![\w/])(?:cluster|configs|jobs|benchmarks)/[\w./-]*\w", page)) | set(
        re.findall(r"[\w-]+\.yaml", page)
    )
    missing = [
        name
        for name in named
        if not (ROOT / name).exists() and not list(CLUSTER.glob(name)) and not (ROOT / "configs" / name).exists()
    ]
    assert not missing
    assert {f"cluster/{path.name}" for path in CLUSTER.iterdir()} <= named | {"cluster/Dockerfile"}
    settings = {name.replace("-", "_") for name in re.findall(r"(?:`|--)workers\.([\w-]+)", page)}
    assert (
        {"min_workers", "num_workers", "resize_interval", "max_failures"}
        == settings
        == settings & set(WorkersConfig.model_fields)
    )
