"""Upstreams of other makers, unmodified: through Baton, each answers like straight."""

import json
import os
import socket
import subprocess
import urllib.request

import openai
import pytest

from conftest import HERE, ROOT, start_baton, stop, wait_for

INSTALLED = ROOT / "target" / "compat"
MOCKS = INSTALLED / "mocks" / "bin"
HELLO = [{"role": "user", "content": "hi"}]
PAY = {
    "type": "function",
    "function": {
        "name": "pay",
        "description": "Pays an amount.",
        "parameters": {
            "type": "object",
            "properties": {"amount": {"type": "integer"}},
            "required": ["amount"],
        },
    },
}


def llmock(port):
    return [MOCKS / "llmock", "serve", "--port", port, "--response-style", "hello"]


def fakellm(port):
    return [MOCKS / "fakellm", "serve", "--port", port, "--config", HERE / "mocks" / "fakellm.yaml"]


def aimock(port):
    program = INSTALLED / "node" / "node_modules" / ".bin" / "llmock"
    return ["node", program, "-p", port, "-f", HERE / "mocks" / "aimock.json"]


class Mock:
    """A mock server, and a Baton with it as its upstream."""

    def __init__(self, command, tmp):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "LLM"))}
        with open(tmp / "mock.log", "wb") as log:
            self.process = subprocess.Popen(
                [str(part) for part in command(port)],
                cwd=tmp,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

        def ready():
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=2):
                    return True
            except OSError:
                return None

        wait_for(command.__name__, ready, self.process)
        self.baton, self.ready = start_baton(
            tmp, LLM_BASE_URL=f"{self.url}/v1", LLM_API_KEY="sk-compat-0f8e2b7c41d94e6f"
        )

    def stop(self):
        stop(self.baton)
        self.process.kill()
        self.process.wait()

    def client(self, way):
        if way == "straight":
            return openai.OpenAI(base_url=f"{self.url}/v1", api_key="sk-none")
        base_url = f"{self.ready['base_url']}/v1"
        return openai.OpenAI(base_url=base_url, api_key=self.ready["api_key"])

    def script(self, *behaviours):
        """Has llmock behave so, one request each."""
        self.request(f"{self.url}/_llmock/scenario", {"behaviors": behaviours})

    def request(self, url, body=None):
        headers = {"Authorization": f"Bearer {self.ready['api_key']}"}
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=90) as answer:
            return answer.read().decode()


@pytest.fixture(scope="module", params=[llmock, fakellm, aimock], ids=lambda mock: mock.__name__)
def mock(request, tmp_path_factory):
    started = Mock(request.param, tmp_path_factory.mktemp(request.param.__name__))
    started.name = request.param.__name__
    yield started
    started.stop()


def text_of(stream):
    return "".join(part.choices[0].delta.content or "" for part in stream if part.choices)


def test_a_chat_has_the_upstream_s_answer_whole_and_streamed(mock):
    answers = set()
    for way in ["straight", "through Baton"]:
        ask = mock.client(way).chat.completions.create
        answers.add(ask(model="gpt-4o", messages=HELLO).choices[0].message.content)
        answers.add(text_of(ask(model="gpt-4o", messages=HELLO, stream=True)))
    assert len(answers) == 1 and answers.pop(), answers


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("way", ["straight", "through Baton"])
def test_a_tool_loop_ends_with_the_upstream_s_answer(mock, way, streamed):
    if mock.name == "llmock":
        call = {"name": "pay", "arguments": {"amount": 7}}
        mock.script({"type": "reply", "tool_calls": [call]}, {"type": "reply", "text": "It says: paid 7"})
    if mock.name == "fakellm":
        mock.request(f"{mock.url}/_fakellm/reset", {})
    chat = mock.client(way).chat.completions
    history = [{"role": "user", "content": "Pay seven"}]

    def answer():
        asked = {"model": "gpt-4o", "messages": history, "tools": [PAY]}
        if not streamed:
            return chat.create(**asked).choices[0]
        with chat.stream(**asked) as stream:
            return stream.get_final_completion().choices[0]

    first = answer()
    assert first.finish_reason == "tool_calls"
    (call,) = first.message.tool_calls
    assert json.loads(call.function.arguments) == {"amount": 7}
    message = first.message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"})
    history += [message, {"role": "tool", "tool_call_id": call.id, "content": "paid 7"}]
    last = answer()
    assert last.finish_reason == "stop"
    assert last.message.content == "It says: paid 7"


@pytest.mark.parametrize("fault", ["disconnect", "truncate", "malformed"])
def test_a_run_outlives_an_answer_that_llmock_breaks(mock, fault):
    if mock.name != "llmock":
        pytest.skip("only llmock breaks answers on request")
    mock.script({"type": "stream_fault", "kind": fault, "after_chunks": 3})
    runs = f"{mock.ready['base_url']}/v1/runs"
    run = json.loads(mock.request(f"{runs}?wait=60s", {"model": "gpt-4o", "input": fault}))
    assert run["status"] == "completed", run
    shown = ""
    for line in mock.request(f"{runs}/{run['id']}/events").splitlines():
        event = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
        if event.get("type") == "attempt.reset":
            # A break before the first shown text withdraws nothing.
            shown = ""
        if event.get("type") == "text.delta":
            shown += event["data"]["text"]
    assert shown == run["output"][-1]["content"] != ""


def test_baton_s_answers_comply_with_openai_s_schema_where_llmock_s_do_not(mock):
    if mock.name != "llmock":
        pytest.skip("only llmock calls any tool that it is offered")
    program = [INSTALLED / "clients" / "bin" / "llm-comply", "run", "-m", "gpt-5"]

    def ends(url, key, *more):
        asked = [*program, *more, "-u", f"{url}/v1", "-k", key]
        return subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)

    chat = ("--format", "openai-chat")
    straight = ends(mock.url, "sk-none", *chat)
    assert "3/9 passed" in straight.stdout, straight.stdout + straight.stderr
    through = ends(mock.ready["base_url"], mock.ready["api_key"], *chat)
    assert through.returncode == 0, through.stdout + through.stderr
    assert "All 9 tests passed" in through.stdout
    responses = ends(mock.ready["base_url"], mock.ready["api_key"], "--format", "open-responses")
    assert "All 13 tests passed" in responses.stdout, responses.stdout + responses.stderr
