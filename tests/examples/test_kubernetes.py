"""examples/kubernetes: manifests that the API's schemas allow, that agree with one another and with
what the server does, and a pod as they describe it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from documents.checks import sandboxes
from documents.markdown import ROOT
from fastspawn.serve import cli
from netspace import apart
from serve.harness import BOUND, Client, children, poll

kubernetes_validate = pytest.importorskip("kubernetes_validate")
yaml = pytest.importorskip("yaml")

FOLDER = ROOT / "examples" / "kubernetes"
FILES = sorted(FOLDER.glob("*.yaml"))
CORE = ("deployment", "service", "disruption", "autoscaler")
"""Of Kubernetes itself. The others are of its extensions, whose schemas are not at hand."""


def load(name: str) -> Any:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


def container(name: str) -> dict[str, Any]:
    return dict(load(name)["spec"]["template"]["spec"]["containers"][0])


def instructions() -> list[tuple[str, str]]:
    """Of the last stage of the Containerfile."""
    text = (FOLDER / "Containerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = [tuple(line.split(" ", 1)) for line in lines]
    last = max(i for i, (what, _) in enumerate(found) if what == "FROM")
    return found[last:]  # type: ignore[return-value]


def image() -> tuple[list[str], dict[str, str]]:
    """The command line and the environment that it gives."""
    said = dict(instructions())
    return (
        [*json.loads(said["ENTRYPOINT"]), *json.loads(said["CMD"])],
        dict(word.split("=", 1) for word in said["ENV"].split()),
    )


def environ(name: str) -> dict[str, str]:
    """What the container gets, with Knative's PORT."""
    own = container(name)
    port = str(own["ports"][0]["containerPort"])
    return image()[1] | {"PORT": port} | {each["name"]: each["value"] for each in own["env"]}


@pytest.mark.parametrize("name", CORE)
def test_schema(name: str) -> None:
    kubernetes_validate.validate(load(name), kubernetes_validate.latest_version(), strict=True)


def test_schema_is_looked_at() -> None:
    wrong = load("deployment")
    wrong["spec"]["template"]["spec"]["terminationGracePeriod"] = 1
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriod"):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


def test_knative_is_a_pod() -> None:
    """But for what Knative adds, its template is one."""
    spec = load("knative")["spec"]["template"]["spec"]
    assert spec.pop("containerConcurrency") == 32
    assert spec.pop("timeoutSeconds") > 30
    for each in spec["containers"]:
        each["name"] = "user-container"
        for probe in ("readinessProbe", "livenessProbe"):
            each[probe]["httpGet"]["port"] = each["ports"][0]["containerPort"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "words"}, "spec": spec}
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)


def test_every_file_is_checked() -> None:
    assert {file.stem for file in FILES} == {*CORE, "podmonitor", "adapter", "knative"}


@pytest.mark.parametrize("name", ["deployment", "knative"])
def test_variables_are_options(name: str) -> None:
    config = cli.parse(["--", "true"], environ(name))
    assert (config.host, config.port) == (("0.0.0.0",), 8080)
    own = container(name)
    probes = {what: own[what]["httpGet"]["path"] for what in own if what.endswith("Probe")}
    assert probes.pop("livenessProbe") == config.health_path
    assert set(probes.values()) == {config.ready_path}
    assert config.keep_alive_timeout > 60


def test_time_to_end() -> None:
    """No kubelet kills it before it has had its times."""
    spec = load("deployment")["spec"]["template"]["spec"]
    config = cli.parse(["--", "true"], environ("deployment"))
    assert config.graceful_timeout is not None
    assert config.routes[0].exec_timeout == config.graceful_timeout
    wait = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    takes = wait + config.drain_delay + config.graceful_timeout + config.kill_grace
    assert takes < spec["terminationGracePeriodSeconds"]


def test_they_mean_one_another() -> None:
    deployment = load("deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for name in ("deployment", "disruption", "podmonitor"):
        assert load(name)["spec"]["selector"]["matchLabels"] == labels
    assert load("service")["spec"]["selector"] == labels
    ports = {each["name"] for each in container("deployment")["ports"]}
    assert {each["targetPort"] for each in load("service")["spec"]["ports"]} == ports
    monitored = load("podmonitor")["spec"]["podMetricsEndpoints"][0]
    assert {monitored["port"]} == ports
    assert monitored["path"] == image()[1]["FASTSPAWN_METRICS_PATH"]
    assert load("autoscaler")["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    target = load("autoscaler")["spec"]["metrics"][0]["pods"]["target"]["averageValue"]
    assert int(target) < int(environ("deployment")["FASTSPAWN_MAX_INFLIGHT"])


def pod(folder: Path) -> list[str]:
    """What runs the image's command as the manifest has it: nobody, on a root that is read-only."""
    bwrap = shutil.which("bwrap")
    if bwrap is None or not sandboxes(bwrap):
        pytest.skip("no sandbox")
    context = load("deployment")["spec"]["template"]["spec"]["securityContext"]
    words = [bwrap, "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--unshare-user"]
    words += ["--bind", str(folder / "volume"), str(folder / "volume"), "--cap-drop", "ALL"]
    words += ["--uid", str(context["runAsUser"]), "--gid", str(context["runAsGroup"]), "--"]
    command = [word.replace("/app/", f"{FOLDER}/") for word in image()[0]]
    assert command[:2] == ["fastspawn", "serve"]
    return [*words, sys.executable, "-m", "fastspawn", *command[1:]]


def test_pod(tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    (tmp_path / "volume").mkdir(mode=0o777)
    (tmp_path / "volume").chmod(0o777)
    words = pod(tmp_path)
    given = environ("deployment") | {"TMPDIR": str(tmp_path / "volume")}
    given["PATH"] = os.environ["PATH"]

    def ask(method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        with Client(socket.create_connection(("127.0.0.1", int(given["PORT"])), BOUND)) as client:
            client.request(method, path, f"Content-Length: {len(body)}", body=body)
            answer = client.read()
            return answer.status, answer.body

    def up() -> bool:
        try:
            return ask("GET", probes["startupProbe"]) == (200, b"ready\n")
        except OSError:
            return False

    own = container("deployment")
    probes = {what: own[what]["httpGet"]["path"] for what in own if what.endswith("Probe")}
    metric = load("autoscaler")["spec"]["metrics"][0]["pods"]["metric"]["name"]
    series = load("adapter")["rules"]["custom"][0]["seriesQuery"]

    def work() -> None:
        said = tmp_path / "said"
        with said.open("wb") as out:
            process = subprocess.Popen(words, env=given, cwd="/", stdout=out, stderr=out)
        try:
            poll(lambda: up() or process.poll() is not None, "ready")
            assert process.poll() is None, said.read_text()
            poll(lambda: " on http://0.0.0.0:8080 " in said.read_text(), "the line that says so")
            assert ask("GET", probes["livenessProbe"])[0] == 200
            assert ask("POST", "/", b"three words here")[1].split() == [b"3"]
            figures = ask("GET", load("podmonitor")["spec"]["podMetricsEndpoints"][0]["path"])[1]
            assert re.search(rf"^{metric}{{.*}} \d", figures.decode(), re.MULTILINE)
            assert series.startswith(f"{metric}{{")
            (server,) = children(process.pid)  # bwrap waits for it, and ends as it does
            os.kill(server, signal.SIGTERM)
            assert process.wait(BOUND) == 0
        finally:
            process.kill()
            process.wait()

    apart(work)
