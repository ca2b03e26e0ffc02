"""A live Baton for each upstream that the tests need, started as a script would start it."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BATON = ROOT / "target" / "debug" / "baton"
HERE = pathlib.Path(__file__).resolve().parent


def wait_for(what, ready, process, seconds=90):
    """Waits until `ready` answers; fails as soon as the process has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"{what} ended with {process.returncode} before it was ready")
        value = ready()
        if value is not None:
            return value
        time.sleep(0.05)
    pytest.fail(f"{what} was not ready within {seconds} s")


def stop(process):
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) is not None


def start_baton(tmp, *arguments, **environment):
    ready_file = tmp / "ready.json"
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("LLM_")}
    with open(tmp / "baton.log", "wb") as log:
        process = subprocess.Popen(
            [BATON, "dev", "--data", tmp / "data", "--http", "127.0.0.1:0", "--ready-file", ready_file, *arguments],
            env={**inherited, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )

    def ready():
        try:
            return json.loads(ready_file.read_text())
        except (FileNotFoundError, ValueError):
            return None

    return process, wait_for("baton dev", ready, process)


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """Baton with its built-in demo model."""
    process, ready = start_baton(tmp_path_factory.mktemp("demo"))
    yield ready
    stop(process)
    assert process.returncode == 0


class Upstream:
    """The upstream of `upstream.py`, and what it has seen."""

    def __init__(self, url):
        self.url = url

    def seen(self):
        with urllib.request.urlopen(f"{self.url}/seen", timeout=10) as answer:
            return json.load(answer)

    def asked(self, model):
        """The requests for this model."""
        return [request for request in self.seen()["requests"] if request["model"] == model]

    def release(self, model):
        """Lets a silent answer go on."""
        urllib.request.urlopen(f"{self.url}/release/{model}", timeout=10).close()

    def wait_until_closed(self, model):
        """Waits until an answer of this model was broken off by whoever asked for it."""
        self.wait_until(lambda seen: model in seen["closed_early"])

    def wait_until(self, holds, seconds=30):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            seen = self.seen()
            if holds(seen):
                return seen
            time.sleep(0.02)
        pytest.fail(f"the upstream has seen only: {self.seen()}")


@pytest.fixture(scope="session")
def upstream():
    """An upstream that misbehaves on request."""
    process = subprocess.Popen(
        [sys.executable, HERE / "upstream.py"], stdout=subprocess.PIPE, text=True
    )
    port = int(process.stdout.readline())
    yield Upstream(f"http://127.0.0.1:{port}")
    process.kill()
    process.wait()


@pytest.fixture(scope="session")
def scripted(upstream, tmp_path_factory):
    """Baton in front of that upstream."""
    process, ready = start_baton(
        tmp_path_factory.mktemp("scripted"),
        LLM_BASE_URL=f"{upstream.url}/v1",
        BATON_LLM__IDLE_TIMEOUT="3s",
        BATON_LLM__MAX_RETRIES="2",
        # So short that every answer that is waited for has several.
        BATON_HTTP__HEARTBEAT="200ms",
    )
    yield ready
    stop(process)


@pytest.fixture(scope="session")
def litellm(tmp_path_factory):
    """Baton in front of LiteLLM's proxy, which answers with mock responses."""
    tmp = tmp_path_factory.mktemp("litellm")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    key = "sk-compat-0f8e2b7c41d94e6f"
    environment = {
        **{k: v for k, v in os.environ.items() if k != "DATABASE_URL"},
        "LITELLM_MASTER_KEY": key,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    with open(tmp / "litellm.log", "wb") as log:
        proxy = subprocess.Popen(
            [
                ROOT / "target" / "compat" / "litellm" / "bin" / "litellm",
                "--config", HERE / "litellm.yaml",
                "--host", "127.0.0.1",
                "--port", str(port),
            ],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )

    def ready():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=2):
                return True
        except OSError:
            return None

    wait_for("litellm", ready, proxy, seconds=180)
    process, ready_baton = start_baton(
        tmp, LLM_BASE_URL=f"http://127.0.0.1:{port}/v1", LLM_API_KEY=key, BATON_LLM__MAX_RETRIES="1"
    )
    yield {**ready_baton, "upstream_url": f"http://127.0.0.1:{port}/v1", "upstream_key": key}
    stop(process)
    proxy.kill()
    proxy.wait()
