"""The Responses routes with the official Python SDK, unchanged, against a live Baton."""

import os
import shutil
import subprocess
import time

import openai
import pydantic
import pytest

from conftest import HERE, ROOT

QUESTION = "What is 15% of 847?"
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


def client(ready, **options):
    return openai.OpenAI(base_url=f"{ready['base_url']}/v1", api_key=ready["api_key"], **options)


def until_ended(sdk, response, seconds=60):
    deadline = time.monotonic() + seconds
    while response.status in {"queued", "in_progress"}:
        assert time.monotonic() < deadline, response
        time.sleep(0.05)
        response = sdk.responses.retrieve(response.id)
    return response


def test_a_whole_response_shows_the_agent_s_tools_as_answered_calls(demo):
    response = client(demo).responses.create(model="demo", input=QUESTION, instructions="Be brief.")
    assert response.id.startswith("resp_")
    assert response.status == "completed"
    assert "127.05" in response.output_text
    assert [item.type for item in response.output][-3:] == ["function_call", "function_call_output", "message"]
    assert response.usage.total_tokens > 0
    assert response.instructions == "Be brief."


def test_the_stream_helper_ends_with_the_response_that_a_read_shows(demo):
    sdk = client(demo)
    with sdk.responses.stream(model="demo", input=QUESTION) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert "127.05" in final.output_text
    assert sdk.responses.retrieve(final.id).output_text == final.output_text


def test_parse_reads_a_structured_answer(demo):
    class City(pydantic.BaseModel):
        name: str
        inhabitants: int

    parsed = client(demo).responses.parse(model="demo", input="Name a city.", text_format=City)
    assert isinstance(parsed.output_parsed, City)


def test_a_background_response_is_polled_and_goes_on_as_a_conversation(demo):
    sdk = client(demo)
    first = sdk.responses.create(model="demo", input=QUESTION, background=True)
    assert first.status == "queued"
    first = until_ended(sdk, first)
    assert first.status == "completed"
    second = sdk.responses.create(model="demo", input="Thanks.", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    items = list(sdk.responses.input_items.list(second.id, order="asc", limit=1))
    kinds = [item.type for item in items]
    assert kinds == ["message", *[item.type for item in first.output], "message"]
    assert items[-1].content[0].text == "Thanks."


def test_a_stream_resumes_after_each_of_its_events(demo):
    sdk = client(demo)
    with sdk.responses.create(model="demo", input="Hello.", background=True, stream=True) as stream:
        uncut = [event.to_dict() for event in stream]
    run = uncut[0]["response"]["id"]
    for at, event in enumerate(uncut):
        rest = sdk.responses.retrieve(run, stream=True, starting_after=event["sequence_number"])
        assert [event.to_dict() for event in rest] == uncut[at + 1 :]


def test_a_function_of_the_client_is_called_and_answered(demo):
    sdk = client(demo)
    asked = sdk.responses.create(model="demo", input="The weather in Oslo?", tools=[WEATHER])
    [call] = [item for item in asked.output if item.type == "function_call"]
    assert call.name == "get_weather"
    answer = {"type": "function_call_output", "call_id": call.call_id, "output": "12 degrees"}
    answered = sdk.responses.create(
        model="demo", input=[answer], tools=[WEATHER], previous_response_id=asked.id
    )
    assert "12 degrees" in answered.output_text


def test_the_tokens_of_an_input_are_counted(demo):
    sdk = client(demo)
    counted = sdk.responses.input_tokens.count(model="demo", input=QUESTION)
    assert counted.object == "response.input_tokens"
    instructed = sdk.responses.input_tokens.count(model="demo", input=QUESTION, instructions="Be very brief.")
    assert 0 < counted.input_tokens < instructed.input_tokens
    asked = sdk.responses.create(model="demo", input="Hello.")
    assert asked.usage.input_tokens == sdk.responses.input_tokens.count(model="demo", input="Hello.").input_tokens


def test_a_conversation_is_compacted_and_goes_on(demo):
    sdk = client(demo)
    first = sdk.responses.create(model="demo", input=QUESTION)
    compacted = sdk.responses.compact(model="demo", previous_response_id=first.id)
    assert compacted.object == "response.compaction"
    assert [item.type for item in compacted.output] == ["message", "compaction"]
    assert compacted.usage.total_tokens > 0
    items = [item.to_dict() for item in compacted.output]
    after = sdk.responses.create(model="demo", input=[*items, {"role": "user", "content": "Hello."}])
    assert after.status == "completed"


def test_a_cancelled_response_stays_cancelled(scripted, upstream):
    sdk = client(scripted)
    model = "hang-responses"
    response = sdk.responses.create(model=model, input="x", background=True)
    cancelled = until_ended(sdk, sdk.responses.cancel(response.id))
    assert cancelled.status == "cancelled"
    assert sdk.responses.cancel(response.id).status == "cancelled"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("truncation", "auto"),
        ("include", ["reasoning.encrypted_content"]),
        ("context_management", [{"type": "compaction", "compact_threshold": 10}]),
    ],
)
def test_a_field_that_is_not_served_is_refused_by_its_name(demo, field, value):
    with pytest.raises(openai.BadRequestError) as refused:
        client(demo).responses.create(model="demo", input="x", **{field: value})
    assert refused.value.param.startswith(field)


def test_the_node_sdk_and_the_vercel_ai_sdk_read_responses(demo):
    """The steps are in node/responses.mjs."""
    installed = ROOT / "target" / "compat" / "node"
    shutil.copy(HERE / "node" / "responses.mjs", installed / "responses.mjs")
    ended = subprocess.run(
        ["node", "responses.mjs", f"{demo['base_url']}/v1", demo["api_key"]],
        cwd=installed,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_agents_in_responses_mode_call_their_tools(demo):
    """OpenAI Agents SDK, LangChain and Pydantic AI: the steps are in responses_clients.py."""
    python = ROOT / "target" / "compat" / "clients" / "bin" / "python"
    ended = subprocess.run(
        [python, HERE / "responses_clients.py", f"{demo['base_url']}/v1", demo["api_key"]],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_litellm_s_responses_call_a_tool_and_go_on(demo):
    """The steps are in litellm_responses.py."""
    python = ROOT / "target" / "compat" / "litellm" / "bin" / "python"
    ended = subprocess.run(
        [python, HERE / "litellm_responses.py", f"{demo['base_url']}/v1", demo["api_key"]],
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_responses_of_the_demo_model_comply_with_the_open_responses_schema(demo, tmp_path):
    llm_comply = ROOT / "target" / "compat" / "clients" / "bin" / "llm-comply"
    options = ("-u", f"{demo['base_url']}/v1", "-k", demo["api_key"], "-m", "gpt-5")
    ended = subprocess.run(
        [llm_comply, "run", *options, "--format", "open-responses"],
        env={**os.environ, "HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    failed = [line.strip() for line in ended.stdout.splitlines() if "✗" in line]
    assert not failed, ended.stdout + ended.stderr
    assert "All 13 tests passed" in ended.stdout
