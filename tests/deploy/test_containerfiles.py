"""Images cannot be built without a container engine. So what they would hold is put together, and started."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import msgspec
import pytest
from packaging.markers import Marker

from control.config import KubeAccess, load_config, save_config
from deploy.containers import write as containers
from deploy.kubernetes import write_config as configs

ROOT = Path(__file__).parents[2]
CONTAINERS = ROOT / "deploy" / "containers"
KUBERNETES = ROOT / "deploy" / "kubernetes"
ROLES = sorted(containers.IMAGES)
HERE = "127.0.2.1"
"""This machine, but not the address that everything else is on."""
SECRETS = ("admin", "trade", "webhook", "timeline")
LINE = re.compile(r"([A-Z]+) (.+)")


def instructions(role):
    text = (CONTAINERS / f"{role}.Containerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = [LINE.fullmatch(line) for line in lines]
    assert all(found), f"no instruction: {lines[found.index(None)]}"
    return [(one[1], " ".join(one[2].split())) for one in found]


def pins(text):
    return dict(re.findall(r"^([a-z0-9.-]+)==([^ \\]+)", text, re.MULTILINE))


def test_every_role_of_the_manifests_has_its_image():
    assert sorted(configs.PORTS) == ROLES
    assert {role: image.port for role, image in containers.IMAGES.items()} == configs.PORTS


def test_the_files_are_what_their_script_writes(tmp_path):
    """Otherwise: python deploy/containers/write.py"""
    containers.write(tmp_path)
    written = sorted(path.name for path in (tmp_path / containers.HERE).iterdir())
    kept = sorted(path.name for path in CONTAINERS.iterdir() if path.suffix in {".lock", ".Containerfile"})
    assert written == kept
    for name in written:
        assert (CONTAINERS / name).read_text() == (tmp_path / containers.HERE / name).read_text(), name


def test_the_configurations_are_what_their_script_writes(tmp_path):
    """Otherwise: python deploy/kubernetes/write_config.py"""
    for path in configs.write(tmp_path):
        assert path.read_text() == (ROOT / path.relative_to(tmp_path)).read_text(), path.name


@pytest.mark.parametrize("role", ROLES)
def test_an_image_is_made_in_two_stages_and_runs_as_a_number_that_is_not_zero(role):
    found = instructions(role)
    stages = [value for name, value in found if name == "FROM"]
    assert stages == ["python:3.11-slim AS build", "python:3.11-slim"]
    last = found[[name for name, _ in found].index("FROM", 1) :]
    assert not [value for name, value in last if name in {"RUN", "ADD"}]
    assert [value for name, value in last if name == "USER"] == ["10001:10001"]
    assert [name for name, _ in last].index("USER") < [name for name, _ in last].index("ENTRYPOINT")
    assert not [name for name, _ in found if name not in {
        "FROM", "COPY", "RUN", "ENV", "WORKDIR", "USER", "EXPOSE", "ENTRYPOINT", "CMD"}]  # fmt: skip


@pytest.mark.parametrize("role", ROLES)
def test_what_is_copied_exists_and_what_is_started_is_among_it(role):
    found = instructions(role)
    for value in (value for name, value in found if name == "COPY" and not value.startswith("--from")):
        source, _ = value.split()
        assert (ROOT / source).exists(), source
    entry = json.loads(next(value for name, value in found if name == "ENTRYPOINT"))
    assert entry == ["python", "-m", "control.roles"]
    assert ("COPY", "control /opt/tapewatch/control") in found
    assert json.loads(next(value for name, value in found if name == "CMD")) == [f"/config/{role}.json"]


@pytest.mark.parametrize("role", ROLES)
def test_packages_come_by_their_hashes_and_are_those_that_the_project_is_tested_with(role):
    install = next(value for name, value in instructions(role) if name == "RUN" and "pip install" in value)
    assert {"--require-hashes", "--only-binary=:all:", "--no-deps"} <= set(install.split())
    lock, whole = (CONTAINERS / f"{role}.lock").read_text(), (ROOT / "requirements.lock").read_text()
    assert pins(lock).items() <= pins(whole).items()
    for entry in re.split(r"\n(?=[a-z0-9])", lock.strip()):
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry)
        assert entry in whole, "the same hashes, all of them"
    assert not {"pytest", "mypy", "ruff", "hypothesis", "typer"} & set(pins(lock))


@pytest.mark.parametrize("role", ROLES)
def test_every_package_is_installed_on_the_python_of_the_image(role):
    """A lock for several versions of Python pins some packages twice; an image needs the pin for its own."""
    python = next(value for name, value in instructions(role) if name == "FROM").removeprefix("python:")
    version = python.partition("-")[0]
    lock = (CONTAINERS / f"{role}.lock").read_text()
    lines = re.findall(r"^([a-z0-9.-]+)==[^ \\]+(?: ; ([^\\\n]+))?", lock, re.MULTILINE)
    here = {"python_full_version": f"{version}.9", "python_version": version, "sys_platform": "linux"}
    installed = [name for name, marker in lines if not marker or Marker(marker.strip()).evaluate(here)]
    assert sorted(installed) == sorted({name for name, _ in lines})
    if "numpy" in containers.IMAGES[role].needs:
        assert "numpy" in installed


BOOT = """
import runpy, sys
sys.path[:0] = sys.argv[1:3]
del sys.argv[:3]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def image(tmp_path):
    """Return a command that runs a module in what a role's image holds: its rooms, its packages, nothing else."""

    def command(role, *words):
        for room in containers.rooms(role):
            shutil.copytree(ROOT / room, tmp_path / "tapewatch" / room, ignore=shutil.ignore_patterns("__pycache__"))
        (tmp_path / "site").mkdir()
        for name in pins((CONTAINERS / f"{role}.lock").read_text()):
            distribution = importlib.metadata.distribution(name)
            for top in {path.parts[0] for path in distribution.files or () if path.parts[0] != ".."} - {"__pycache__"}:
                with contextlib.suppress(FileExistsError):
                    (tmp_path / "site" / top).symlink_to(distribution.locate_file(top))
        # without site (-S) neither the virtual environment nor the project's installation in it is found
        paths = [str(tmp_path / part) for part in ("tapewatch", "site")]
        return [sys.executable, "-I", "-S", "-c", BOOT, *paths, *words]

    return command


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((HERE, 0))
        return [one.getsockname()[1] for one in sockets]


def local(config, tmp_path):
    """Return a role's configuration with free ports, its state in `tmp_path`, and no cluster but a dead one."""
    port, stream, other = free_ports(3)
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{"name": "x", "cluster": {"server": f"https://127.0.0.1:{other}"}}],
        "users": [{"name": "x", "user": {"token": "x"}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    }))  # fmt: skip
    secrets = tmp_path / "state" / "secrets"
    secrets.mkdir(parents=True)
    for name in SECRETS:
        (secrets / name).write_text(name * 12)
    for name in ("control", "settlement", "exchange"):
        (tmp_path / "state" / name).mkdir()
    return msgspec.structs.replace(
        config, listen=HERE, port=port, engine_host=HERE, engine_http_port=other, engine_stream_port=stream,
        market_data_host=HERE, market_data_port=other,
        state=str(tmp_path / "state"), faults_allowed=False,
        kube=KubeAccess(kubeconfig=str(kubeconfig)) if config.role == "kube-state" else None,
    )  # fmt: skip


def lives(process, url):
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        with contextlib.suppress(urllib.error.URLError, TimeoutError), urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("role", ROLES)
def test_a_role_starts_from_what_its_image_holds_with_the_configuration_that_its_pod_mounts(role, image, tmp_path):
    config = local(load_config(KUBERNETES / "base" / configs.room(role) / "config" / f"{role}.json"), tmp_path)
    save_config(config, tmp_path / "config.json")
    process = subprocess.Popen(
        image(role, "control.roles", str(tmp_path / "config.json")), stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "numba")},
    )  # fmt: skip
    try:
        assert lives(process, f"http://{HERE}:{config.port}/health/live")
        if role == "engine":
            assert lives(process, f"http://{HERE}:{config.port}/health/ready")
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_the_check_of_an_image_can_fail(image):
    done = subprocess.run(image("engine", "kubernetes"), capture_output=True, text=True, check=False)
    assert "No module named kubernetes" in done.stderr


@pytest.mark.parametrize("role", ["control", "kube-state"])
def test_whoever_speaks_to_the_api_server_has_what_that_needs(role, image):
    done = subprocess.run(image(role, "runbooks.adapters.kubernetes.api"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("role", "module"),
    [("anomaly", "anomaly.fleet"), ("control", "control.causes"), ("control", "anomaly.causes")],
)
def test_what_is_loaded_later_is_in_the_image_as_well(role, module, image, tmp_path):
    done = subprocess.run(image(role, module), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tapewatch" / "alerts" / "anomaly" / "watched.yaml").is_file(), "the list that both read"
