"""Streams with a withdrawn text, or a cancel, as clients of other makers read them.

No event of OpenAI's API says either. So each reader gets the golden stream of the wire, byte for byte, and must
come to its end: with the text that the last response has where it reads that response, else with that text last.
"""

import json
import os
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from conftest import HERE, ROOT

GOLDEN = ROOT / "crates" / "responses" / "golden"
INSTALLED = ROOT / "target" / "compat"
# The environment of each reader, and whether it reads the last response.
READERS = {
    "openai": ("venv", True),
    "agents": ("clients", True),
    "langchain": ("clients", False),
    "pydantic_ai": ("clients", False),
    "litellm": ("litellm", True),
    "openai_node": ("node", True),
    "ai_sdk_openai": ("node", False),
    "ai_sdk_open_responses": ("node", False),
}


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        name = self.path.split("/")[1]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write((GOLDEN / f"{name}.sse").read_bytes())


@pytest.fixture(scope="module")
def golden():
    """A server that answers each request with the golden stream that its path names."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def read(reader, url, tmp):
    environment, _ = READERS[reader]
    if environment == "node":
        shutil.copy(HERE / "node" / "withdrawn.mjs", INSTALLED / "node" / "withdrawn.mjs")
        command = ["node", INSTALLED / "node" / "withdrawn.mjs"]
    else:
        command = [INSTALLED / environment / "bin" / "python", HERE / "withdrawn_clients.py"]
    return subprocess.run(
        [*command, reader, url],
        cwd=tmp,
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("reader", READERS)
def test_a_reader_comes_to_the_text_that_holds_and_to_the_end_of_a_cancelled_response(reader, golden, tmp_path):
    ended = read(reader, golden, tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    withdrawn, cancelled = (json.loads(line) for line in ended.stdout.splitlines()[-2:])
    _, reads_last = READERS[reader]
    assert withdrawn == "Hello" if reads_last else withdrawn.endswith("Hello"), withdrawn
    # The Agents SDK has an error for an answer that is no whole one.
    expected = "status=cancelled" if reader == "agents" else "Hel"
    assert expected in cancelled
