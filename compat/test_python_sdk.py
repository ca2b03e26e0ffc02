"""The official Python SDK, unchanged, against a live Baton."""

import time
import uuid

import httpx
import openai
import pytest


def client(ready, **options):
    return openai.OpenAI(base_url=f"{ready['base_url']}/v1", api_key=ready["api_key"], **options)


QUESTION = [{"role": "user", "content": "What is 15% of 847?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


def test_a_chat_runs_the_agent_loop(demo):
    answer = client(demo).chat.completions.create(model="demo", messages=QUESTION)
    assert "127.05" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.tool_calls is None, "server-side calls stay inside"
    assert answer.usage.total_tokens > 0
    assert answer.id.startswith("chatcmpl-")
    assert answer.object == "chat.completion"


def test_a_streamed_chat_is_the_same_answer_in_pieces(demo):
    stream = client(demo).chat.completions.create(
        model="demo", messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    text, finish, usage, pieces, ids = "", None, None, 0, set()
    for part in stream:
        ids.add(part.id)
        assert part.object == "chat.completion.chunk"
        if part.usage:
            usage = part.usage
            assert part.choices == []
        for choice in part.choices:
            if choice.delta.content:
                text += choice.delta.content
                pieces += 1
            assert not choice.delta.tool_calls
            finish = choice.finish_reason or finish
    assert "127.05" in text
    assert finish == "stop"
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert pieces > 3, "it streams"
    assert len(ids) == 1


def test_the_stream_helper_of_the_sdk_understands_it(demo):
    with client(demo).chat.completions.stream(model="demo", messages=QUESTION) as stream:
        for _ in stream:
            pass
        assert "127.05" in stream.get_final_completion().choices[0].message.content


def test_models_are_listed(demo, scripted):
    assert [model.id for model in client(demo).models.list()]
    assert "plain" in [model.id for model in client(scripted).models.list()]


def test_client_side_tools_come_back_as_tool_calls(scripted):
    answer = client(scripted).chat.completions.create(
        model="tools", messages=[{"role": "user", "content": "Weather?"}], tools=[WEATHER]
    )
    assert answer.choices[0].finish_reason == "tool_calls"
    [call] = answer.choices[0].message.tool_calls
    assert (call.id, call.function.name) == ("call_weather", "get_weather")
    assert call.function.arguments == '{"city":"Paris"}'

    stream = client(scripted).chat.completions.create(
        model="tools", messages=[{"role": "user", "content": "Weather?"}], tools=[WEATHER], stream=True
    )
    arguments, name, finish = "", None, None
    for part in stream:
        for choice in part.choices:
            for piece in choice.delta.tool_calls or []:
                assert piece.index == 0
                name = piece.function.name or name
                arguments += piece.function.arguments or ""
            finish = choice.finish_reason or finish
    assert (name, arguments, finish) == ("get_weather", '{"city":"Paris"}', "tool_calls")


def test_unknown_fields_travel_to_the_upstream(scripted, upstream):
    client(scripted).chat.completions.create(
        model="plain",
        messages=[{"role": "user", "content": "hi", "name": "ann"}],
        temperature=0.25,
        extra_body={"top_k": 7, "vendor": {"deep": [1, 2]}},
    )
    seen = [request for request in upstream.seen()["requests"] if "top_k" in request][-1]
    assert seen["top_k"] == 7
    assert seen["vendor"] == {"deep": [1, 2]}
    assert seen["temperature"] == 0.25
    assert seen["messages"][-1]["name"] == "ann"
    assert seen["stream"] is True, "the upstream is always streamed from"


def test_text_arrives_byte_for_byte(scripted):
    answer = client(scripted).chat.completions.create(
        model="plain", messages=[{"role": "user", "content": "hi"}]
    )
    assert answer.choices[0].message.content == "All is well: naïve 🦀"
    assert answer.usage.total_tokens == 12


def test_a_wrong_key_is_an_authentication_error(demo):
    wrong = openai.OpenAI(base_url=f"{demo['base_url']}/v1", api_key="bt_dev_wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError) as raised:
        wrong.chat.completions.create(model="demo", messages=QUESTION)
    assert raised.value.body["message"]
    assert raised.value.body.keys() >= {"message", "type", "param", "code"}


def test_a_bad_request_names_what_to_change(demo):
    with pytest.raises(openai.BadRequestError) as raised:
        client(demo).chat.completions.create(model="demo", messages=QUESTION, n=2)
    assert raised.value.param == "n"
    with pytest.raises(openai.BadRequestError):
        client(demo).chat.completions.create(model="demo", messages="not a list")


def test_an_upstreams_rate_limit_is_retried_unseen(scripted, upstream):
    model = f"limited-{uuid.uuid4()}"
    answer = client(scripted, max_retries=0).chat.completions.create(
        model=model, messages=[{"role": "user", "content": "hi"}]
    )
    assert answer.choices[0].message.content.startswith("All is well")
    assert len([r for r in upstream.seen()["requests"] if r["model"] == model]) == 2


def test_an_upstreams_refusal_is_told(scripted):
    with pytest.raises(openai.APIStatusError) as raised:
        client(scripted, max_retries=0).chat.completions.create(
            model="broken", messages=[{"role": "user", "content": "hi"}]
        )
    assert "not to my taste" in str(raised.value)


@pytest.mark.parametrize("model", ["cut", "hang"])
def test_a_stream_that_breaks_raises_and_is_not_an_answer(scripted, model):
    stream = client(scripted, max_retries=0).chat.completions.create(
        model=model, messages=[{"role": "user", "content": "hi"}], stream=True
    )
    text = ""
    with pytest.raises(openai.APIError) as raised:
        for part in stream:
            text += part.choices[0].delta.content or ""
    assert text, "what came before the break was shown"
    assert raised.value.body["code"].startswith("upstream_")


def test_a_client_that_goes_away_stops_the_upstream(scripted, upstream):
    closed = upstream.seen()["closed_early"]
    stream = client(scripted).chat.completions.create(
        model="slow", messages=[{"role": "user", "content": "hi"}], stream=True
    )
    next(part for part in stream if part.choices[0].delta.content)
    stream.close()
    upstream.wait_until(lambda seen: seen["closed_early"] > closed)


def test_a_client_that_times_out_stops_the_upstream(scripted, upstream):
    closed = upstream.seen()["closed_early"]
    with pytest.raises(openai.APITimeoutError):
        client(scripted, max_retries=0, timeout=1.0).chat.completions.create(
            model="slow", messages=[{"role": "user", "content": "hi"}]
        )
    upstream.wait_until(lambda seen: seen["closed_early"] > closed)


def test_an_idempotency_key_makes_one_run_of_two_requests(scripted, upstream):
    key = str(uuid.uuid4())
    body = {"model": "plain", "messages": [{"role": "user", "content": f"once {key}"}]}
    ask = client(scripted).chat.completions.create
    first = ask(**body, extra_headers={"Idempotency-Key": key})
    second = ask(**body, extra_headers={"Idempotency-Key": key})
    assert first.id == second.id
    assert first.choices[0].message.content == second.choices[0].message.content
    asked = [r for r in upstream.seen()["requests"] if key in str(r["messages"])]
    assert len(asked) == 1
    with pytest.raises(openai.UnprocessableEntityError):
        ask(**{**body, "temperature": 1}, extra_headers={"Idempotency-Key": key})


def test_a_native_run_outlives_its_client_and_is_read_back(demo):
    headers = {"Authorization": f"Bearer {demo['api_key']}"}
    with httpx.Client(base_url=demo["base_url"], headers=headers, timeout=30) as http:
        made = http.post("/v1/runs", json={"model": "demo", "input": "What is 15% of 847?"})
        assert made.status_code == 202
        run_id = made.json()["id"]
        deadline = time.monotonic() + 30
        while (run := http.get(f"/v1/runs/{run_id}").json())["status"] in ("queued", "running"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert run["status"] == "completed"
        assert "127.05" in run["output"][-1]["content"]
        assert [step["kind"] for step in run["steps"]] == ["turn", "call", "turn"]
        events = http.get(f"/v1/runs/{run_id}/events").text
        assert events.rstrip().split("event: ")[-1].startswith("run.completed")
        ids = [int(line[4:]) for line in events.splitlines() if line.startswith("id: ")]
        assert ids == sorted(set(ids))
        rest = http.get(f"/v1/runs/{run_id}/events", headers={"Last-Event-ID": str(ids[2])}).text
        assert [int(line[4:]) for line in rest.splitlines() if line.startswith("id: ")] == ids[3:]


def test_litellm_is_an_upstream_like_any_other(litellm):
    for stream in (False, True):
        answer = client(litellm).chat.completions.create(
            model="mock", messages=[{"role": "user", "content": "hi"}], stream=stream
        )
        if stream:
            text = "".join(p.choices[0].delta.content or "" for p in answer if p.choices)
        else:
            text = answer.choices[0].message.content
        assert text == "LiteLLM says hello through Baton."
