"""Clients of other makers against a live Baton, each next to a control run straight at the upstream."""

import os
import shutil
import subprocess

import pytest

from conftest import HERE, ROOT

INSTALLED = ROOT / "target" / "compat"
BIN = INSTALLED / "clients" / "bin"


def python(environment):
    return lambda: [INSTALLED / environment / "bin" / "python", HERE / "clients.py"]


def node():
    # Node looks for modules in the folder of the program.
    shutil.copy(HERE / "node" / "clients.mjs", INSTALLED / "node" / "clients.mjs")
    return ["node", INSTALLED / "node" / "clients.mjs"]


CLIENTS = {
    "agents": python("clients"),
    "langchain": python("clients"),
    "langgraph": python("clients"),
    "pydantic_ai": python("clients"),
    "instructor": python("clients"),
    "smolagents": python("clients"),
    "llm": python("clients"),
    "litellm": python("litellm"),
    "inspect_ai": python("inspect"),
    "ai_sdk_openai": node,
    "ai_sdk_openai_compatible": node,
    "agents_js": node,
}


def run(tmp, *command):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "LLM_"))}
    return subprocess.run(
        command,
        cwd=tmp,
        env={
            **environment,
            "HOME": str(tmp),
            "LLM_USER_PATH": str(tmp),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("way", ["straight at the upstream", "through Baton"])
@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_calls_its_tool_and_has_the_answer(client, way, scripted, upstream, tmp_path):
    model = f"pay-{client}-{way.split()[0]}"
    if way == "through Baton":
        where = (f"{scripted['base_url']}/v1", scripted["api_key"])
    else:
        where = (f"{upstream.url}/v1", "sk-none")
    ended = run(tmp_path, *CLIENTS[client](), client, *where, model)
    assert ended.returncode == 0, ended.stderr
    assert "It says: paid 7" in ended.stdout


def test_the_answers_of_the_demo_model_comply_with_openai_s_schema(demo, tmp_path):
    options = ("-u", f"{demo['base_url']}/v1", "-k", demo["api_key"], "-m", "gpt-5")
    ended = run(tmp_path, BIN / "llm-comply", "run", *options, "--format", "openai-chat")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "All 9 tests passed" in ended.stdout
