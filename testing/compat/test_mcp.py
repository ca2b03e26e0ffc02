"""MCP servers of other makers, unmodified: their tools through Baton."""

import json
import os
import socket
import subprocess

import openai
import pytest

from conftest import BATON, HERE, ROOT, start_baton, stop, wait_for

INSTALLED = ROOT / "target" / "compat"


def everything(port):
    program = INSTALLED / "node" / "node_modules" / ".bin" / "mcp-server-everything"
    return ["node", program, "streamableHttp"]


def python(port):
    return [INSTALLED / "mocks" / "bin" / "python", HERE / "mocks" / "mcp_server.py", port]


# The server, the protocol that it speaks with Baton, some of its tools, and calls with a part of each result.
SERVERS = {
    "everything": (
        everything,
        "2025-11-25",
        ["echo", "get-sum", "get-tiny-image", "get-structured-content"],
        [
            ("echo", {"message": "sheep"}, "sheep"),
            ("get-sum", {"a": 20, "b": 22}, "42"),
            ("get-tiny-image", {}, '[image, "image/png", '),
            ("get-structured-content", {"location": "Chicago"}, "temperature"),
            ("echo", {}, "do not match its schema"),
        ],
    ),
    "python": (
        python,
        "2026-07-28",
        ["add", "fail"],
        [("add", {"a": 20, "b": 22}, "42"), ("fail", {}, "Error executing tool fail")],
    ),
}


@pytest.fixture(scope="module", params=SERVERS)
def server(request, tmp_path_factory):
    command, protocol, tools, calls = SERVERS[request.param]
    tmp = tmp_path_factory.mktemp("mcp")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    with open(tmp / "server.log", "wb") as log:
        process = subprocess.Popen(
            [str(part) for part in command(port)],
            cwd=tmp,
            env={**os.environ, "PORT": port},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}/mcp"

    def probed():
        found = subprocess.run([BATON, "mcp", "probe", "--json", url], capture_output=True, check=False)
        return json.loads(found.stdout) if found.returncode == 0 else None

    yield url, protocol, tools, calls, wait_for("the MCP server", probed, process)
    process.kill()
    process.wait()


def test_a_probe_finds_the_server_and_its_tools(server):
    _, protocol, tools, _, found = server
    assert found["server"]["protocol"] == protocol
    assert set(tools) <= {tool["name"] for tool in found["tools"]}


def test_a_run_calls_its_tools(server, upstream, tmp_path):
    url, _, tools, calls, _ = server
    servers = [{"name": "other", "url": url, "tools": tools}]
    process, ready = start_baton(
        tmp_path, LLM_BASE_URL=f"{upstream.url}/v1", BATON_MCP__SERVERS=json.dumps(servers)
    )
    try:
        client = openai.OpenAI(base_url=f"{ready['base_url']}/v1", api_key=ready["api_key"])
        for name, arguments, part in calls:
            call = {"name": f"other__{name}", "arguments": json.dumps(arguments)}
            messages = [{"role": "user", "content": json.dumps(call)}]
            answer = client.chat.completions.create(model="invoke", messages=messages)
            assert part in answer.choices[0].message.content, (name, answer)
        offered = {tool["function"]["name"] for tool in upstream.asked("invoke")[-1]["tools"]}
        assert {f"other__{name}" for name in tools} <= offered
    finally:
        stop(process)


def test_a_response_lists_and_calls_its_tools(server, upstream, tmp_path):
    """The typed events and items of the official SDK, then the Agents SDK: its steps are in mcp_client.py."""
    url, _, tools, calls, _ = server
    servers = [{"name": "other", "url": url, "tools": tools}]
    process, ready = start_baton(
        tmp_path, LLM_BASE_URL=f"{upstream.url}/v1", BATON_MCP__SERVERS=json.dumps(servers)
    )
    try:
        base_url = f"{ready['base_url']}/v1"
        sdk = openai.OpenAI(base_url=base_url, api_key=ready["api_key"])
        name, arguments, part = calls[0]
        mcp = {"type": "mcp", "server_label": "other", "server_url": url, "require_approval": "never"}
        question = json.dumps({"name": f"other__{name}", "arguments": json.dumps(arguments)})
        with sdk.responses.stream(model="invoke", input=question, tools=[mcp]) as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_response()
        assert [item.type for item in final.output] == ["mcp_list_tools", "mcp_call", "message"]
        listed, call, _ = final.output
        assert {tool.name for tool in listed.tools} == set(tools)
        assert (call.server_label, call.name, call.status, call.error) == ("other", name, "completed", None)
        assert part in call.output and json.loads(call.arguments) == arguments
        for kind in ["mcp_list_tools.completed", "mcp_call.in_progress", "mcp_call_arguments.done", "mcp_call.completed"]:
            assert f"response.{kind}" in kinds, kinds
        assert sdk.responses.retrieve(final.id).output[:2] == final.output[:2]
        with pytest.raises(openai.BadRequestError) as refused:
            sdk.responses.create(model="invoke", input="x", tools=[{**mcp, "server_label": "unknown"}])
        assert refused.value.param == "tools[0].server_label"

        python = INSTALLED / "clients" / "bin" / "python"
        command = [python, HERE / "mcp_client.py", base_url, ready["api_key"], "other", name, json.dumps(arguments)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        client = json.loads(ended.stdout)
        assert all(part in said for said in client["said"]) and len(client["said"]) == 5, client
        assert client["asked"] == [name, name], client
        assert "mcp_list_tools" in client["names"], client
    finally:
        stop(process)


# The client scenarios of the official conformance suite that need neither OAuth nor a person within an open call.
SCENARIOS = [
    ("2025-11-25", "initialize"),
    ("2025-11-25", "tools_call"),
    ("2025-11-25", "sse-retry"),
    ("2025-11-25", "json-schema-2020-12-preservation"),
    ("2026-07-28", "tools_call"),
    ("2026-07-28", "request-metadata"),
    ("2026-07-28", "http-standard-headers"),
    ("2026-07-28", "http-custom-headers"),
    ("2026-07-28", "http-invalid-tool-headers"),
    ("2026-07-28", "json-schema-ref-no-deref"),
    ("2026-07-28", "json-schema-2020-12-preservation"),
    ("2026-07-28", "sep-2322-client-request-state"),
]


@pytest.mark.parametrize(("version", "scenario"), SCENARIOS)
def test_the_client_conforms(version, scenario):
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    if int(node.strip("v\n").split(".")[0]) < 22:
        pytest.skip("the conformance suite needs Node 22")
    suite = INSTALLED / "node" / "node_modules" / ".bin" / "conformance"
    client = ROOT / "target" / "debug" / "examples" / "conformance"
    arguments = ["--command", client, "--scenario", scenario, "--spec-version", version]
    ran = subprocess.run(
        ["node", suite, "client", *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    said = ran.stdout + ran.stderr
    assert ran.returncode == 0 and "OVERALL: PASSED" in said, said
