"""The examples of nats/examples, with the clients that they are written for, against a live Baton."""

import http.server
import os
import pathlib
import shutil
import signal
import subprocess
import threading

import pytest

from conftest import ROOT, start_baton, stop, wait_for

EXAMPLES = ROOT / "nats" / "examples"
TARGET = ROOT / "target" / "compat"


def python():
    return [TARGET / "nats" / "bin" / "python", EXAMPLES / "run.py"]


def node():
    # Beside its modules.
    shutil.copy(EXAMPLES / "run.mjs", TARGET / "nats-node" / "run.mjs")
    return ["node", TARGET / "nats-node" / "run.mjs"]


def shell():
    return [EXAMPLES / "run.sh"]


in_every_language = pytest.mark.parametrize("program", [python, node, shell])


class Till:
    """A tool that takes its time: nobody who is cut off meanwhile can know whether it paid."""

    def __init__(self):
        self.calls = 0
        self.called = threading.Semaphore(0)
        till = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                till.calls += 1
                till.called.release()
                self.connection.recv(1 << 16)
                # Until whoever called is gone.
                while self.connection.recv(1 << 16):
                    pass

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}/pay"


class Served:
    """A Baton whose worker can be killed, and is started again."""

    def __init__(self, process, ready, till):
        self.process, self.till = process, till
        self.environment = {
            **os.environ,
            "NATS_URL": ready["nats_url"],
            "BATON_API_KEY": ready["api_key"],
            "BATON_KEY_ID": ready["key_id"],
            "BATON_TENANT": ready["tenant"],
        }

    def start(self, program, *arguments):
        return subprocess.Popen(
            [*program(), *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, program, *arguments):
        out, err = self.start(program, *arguments).communicate(timeout=120)
        return out, err

    def kill_worker(self):
        for entry in pathlib.Path("/proc").iterdir():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                status = (entry / "status").read_text()
            except OSError:
                continue
            if b"worker" in words and f"PPid:\t{self.process.pid}\n" in status:
                os.kill(int(entry.name), signal.SIGKILL)
                return
        pytest.fail("there is no worker")


@pytest.fixture(scope="module")
def served(upstream, tmp_path_factory):
    till = Till()
    tmp = tmp_path_factory.mktemp("nats")
    config = tmp / "baton.toml"
    config.write_text(
        f'[[tools.http]]\nname = "pay"\ndescription = "Pays"\nurl = "{till.url}"\n'
        'method = "POST"\nidempotent = false\ntimeout = "10m"\n'
    )
    process, ready = start_baton(
        tmp,
        "--separate",
        LLM_BASE_URL=f"{upstream.url}/v1",
        BATON_CONFIG=str(config),
        BATON_WORKER__LEASE="3s",
        BATON_WORKER__RENEW_EVERY="500ms",
    )
    yield Served(process, ready, till)
    stop(process)
    till.server.shutdown()


@in_every_language
def test_a_job_is_published_and_its_tokens_are_followed_to_the_end(served, program):
    out, err = served.run(program, "plain", "Hello")
    assert "All is well: naïve 🦀" in out, err
    assert out.rstrip().endswith("run.completed]")


@in_every_language
def test_a_run_is_cancelled(served, program):
    out, err = served.run(program, "slow", "Count", "--cancel")
    assert out.startswith("0 "), err
    assert out.rstrip().endswith("run.cancelled]")
    assert "2999" not in out


@in_every_language
def test_an_approval_is_answered(served, program):
    process = served.start(program, f"pay-{program.__name__}", "Pay seven")
    assert served.till.called.acquire(timeout=60)
    calls = served.till.calls
    served.kill_worker()
    out, err = process.communicate(timeout=120)
    assert '[was pay({"amount":7}) done? fail]' in out, err
    assert "It says: " in out
    assert out.rstrip().endswith("run.completed]")
    assert served.till.calls == calls, "given up, and not made again"


@in_every_language
def test_a_refusal_is_told(served, program):
    process = served.start(program, "", "Hello")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "refused: missing_model" in err, out
