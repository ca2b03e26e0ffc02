"""The official Python SDK, unchanged, against a live Baton."""

import asyncio
import json
import time
import uuid

import httpx2 as httpx
import openai
import pytest


def client(ready, **options):
    return openai.OpenAI(base_url=f"{ready['base_url']}/v1", api_key=ready["api_key"], **options)


def own(behaviour):
    """A model that behaves so, for one test alone."""
    return f"{behaviour}-{uuid.uuid4()}"


def text_of(stream):
    return "".join(part.choices[0].delta.content or "" for part in stream if part.choices)


HELLO = [{"role": "user", "content": "hi"}]
WELL = "All is well: naïve 🦀"
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


def test_a_stream_has_the_frames_of_the_original(scripted):
    for usage in (False, True):
        body = {"model": "plain", "messages": HELLO, "stream": True}
        if usage:
            body["stream_options"] = {"include_usage": True}
        answer = httpx.post(
            f"{scripted['base_url']}/v1/chat/completions",
            json=body,
            headers={"Authorization": f"Bearer {scripted['api_key']}"},
        )
        assert answer.headers["content-type"].startswith("text/event-stream")
        frames = [f for f in answer.text.split("\n\n") if f and f != ": ping"]
        assert all(f.startswith("data: ") and "\n" not in f for f in frames), "no ids, no names"
        assert frames.pop() == "data: [DONE]"
        chunks = [json.loads(frame.removeprefix("data: ")) for frame in frames]
        assert len({(c["id"], c["object"], c["created"], c["model"]) for c in chunks}) == 1
        assert chunks[0]["id"] == f"chatcmpl-{answer.headers['x-run-id']}"
        first = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
        assert chunks[0]["choices"][0].items() >= first.items()
        if usage:
            last = chunks.pop()
            assert (last["choices"], last["usage"]["total_tokens"]) == ([], 12)
            assert all(c["usage"] is None for c in chunks)
        else:
            assert all("usage" not in c for c in chunks)
        assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
        assert all(c["choices"][0]["finish_reason"] is None for c in chunks[:-1])


def test_models_are_listed_and_read(demo, scripted):
    assert [model.id for model in client(demo).models.list()]
    models = client(scripted).models
    assert "plain" in [model.id for model in models.list()]
    for name in ("plain", "vendor/tools"):
        assert models.retrieve(name).id == name
    with pytest.raises(openai.NotFoundError):
        models.retrieve("nowhere")


def test_client_side_tools_come_back_as_tool_calls(scripted, upstream):
    model = own("tools")
    messages = [{"role": "user", "content": "Weather?"}]
    ask = client(scripted).chat.completions.create
    answer = ask(model=model, messages=messages, tools=[WEATHER])
    assert answer.choices[0].finish_reason == "tool_calls"
    calls = answer.choices[0].message.tool_calls
    expected = [
        ("call_Paris", "get_weather", '{"city":"Paris"}'),
        ("call_Rome", "get_weather", '{"city":"Rome"}'),
    ]
    assert [(c.id, c.function.name, c.function.arguments) for c in calls] == expected

    streamed, finish = {}, None
    for part in ask(model=model, messages=messages, tools=[WEATHER], stream=True):
        for choice in part.choices:
            for piece in choice.delta.tool_calls or []:
                if piece.id:
                    assert piece.index not in streamed, "an id begins a call"
                    streamed[piece.index] = [piece.id, piece.function.name, ""]
                streamed[piece.index][2] += piece.function.arguments or ""
            finish = choice.finish_reason or finish
    assert [tuple(streamed[index]) for index in (0, 1)] == expected
    assert finish == "tool_calls"

    # The results go up as the client sent them.
    results = [{"role": "tool", "tool_call_id": c.id, "content": "sunny"} for c in calls]
    said = answer.choices[0].message
    after = own("plain")
    again = ask(model=after, messages=[*messages, said, *results], tools=[WEATHER])
    assert again.choices[0].message.content == WELL
    [request] = upstream.asked(after)
    sent = request["messages"][-4:]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "tool"]
    assert [c["id"] for c in sent[1]["tool_calls"]] == ["call_Paris", "call_Rome"]
    assert [message["tool_call_id"] for message in sent[2:]] == ["call_Paris", "call_Rome"]


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
    assert answer.choices[0].message.content == WELL
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
    model = own("limited-1")
    answer = client(scripted, max_retries=0).chat.completions.create(model=model, messages=HELLO)
    assert answer.choices[0].message.content == WELL
    assert len(upstream.asked(model)) == 2


def test_the_sdk_repeats_what_failed_for_good(scripted, upstream):
    # Baton asks three times for each request, and the SDK asks Baton twice.
    for refusal in ("limited-3", "down-3"):
        for stream in (False, True):
            model = own(refusal)
            answer = client(scripted, max_retries=1).chat.completions.create(
                model=model, messages=HELLO, stream=stream
            )
            text = text_of(answer) if stream else answer.choices[0].message.content
            assert text == WELL
            assert len(upstream.asked(model)) == 4


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("behaviour", "error", "status", "code"),
    [
        ("broken", openai.BadRequestError, 400, "bad_prompt"),
        ("limited-99", openai.RateLimitError, 429, "upstream_rate_limited"),
        ("down-99", openai.InternalServerError, 502, "upstream_error"),
    ],
)
def test_an_upstreams_refusal_is_an_error_with_its_status(
    scripted, behaviour, error, status, code, stream
):
    with pytest.raises(error) as raised:
        client(scripted, max_retries=0).chat.completions.create(
            model=own(behaviour), messages=HELLO, stream=stream
        )
    assert (raised.value.status_code, raised.value.code) == (status, code)
    assert raised.value.body.keys() == {"message", "type", "param", "code"}
    assert raised.value.response.headers["x-run-id"] in raised.value.message
    if behaviour == "broken":
        assert "not to my taste" in raised.value.message


@pytest.mark.parametrize(
    ("behaviour", "code"), [("cut", "upstream_cut"), ("hang", "upstream_timeout")]
)
def test_a_stream_that_breaks_raises_and_is_not_an_answer(scripted, upstream, behaviour, code):
    model = own(behaviour)
    stream = client(scripted, max_retries=0).chat.completions.create(
        model=model, messages=HELLO, stream=True
    )
    text = ""
    with pytest.raises(openai.APIError) as raised:
        for part in stream:
            assert not part.choices[0].finish_reason
            text += part.choices[0].delta.content or ""
            if text and behaviour == "cut":
                upstream.release(model)
    assert text, "what came before the break was shown"
    assert raised.value.body["code"] == code
    assert raised.value.body.keys() == {"message", "type", "param", "code"}


class CountsPings(httpx.HTTPTransport):
    """Says when the second heartbeat of an answer has gone by."""

    def __init__(self, on_second):
        super().__init__()
        self.on_second = on_second
        self.pings = 0

    def handle_request(self, request):
        response = super().handle_request(request)
        outer, inner = self, response.stream

        class Body(httpx.SyncByteStream):
            def __iter__(self):
                for part in inner:
                    before, outer.pings = outer.pings, outer.pings + part.count(b": ping")
                    if before < 2 <= outer.pings:
                        outer.on_second()
                    yield part

            def close(self):
                inner.close()

        response.stream = Body()
        return response


@pytest.mark.parametrize("behaviour", ["mute", "hang"])
def test_heartbeats_are_no_matter_to_the_sdk(scripted, upstream, behaviour):
    # "mute": before the first token; "hang": in the middle.
    model = own(behaviour)
    transport = CountsPings(lambda: upstream.release(model))
    with httpx.Client(transport=transport, timeout=30) as http:
        stream = client(scripted, http_client=http).chat.completions.create(
            model=model, messages=HELLO, stream=True
        )
        assert text_of(stream).endswith(WELL)
    assert transport.pings >= 2


def test_a_client_that_goes_away_stops_the_upstream(scripted, upstream):
    model = own("slow")
    stream = client(scripted).chat.completions.create(model=model, messages=HELLO, stream=True)
    next(part for part in stream if part.choices[0].delta.content)
    stream.close()
    upstream.wait_until_closed(model)


@pytest.mark.parametrize(
    ("behaviour", "stream"), [("slow", False), ("mute", False), ("mute", True)]
)
def test_a_client_that_times_out_stops_the_upstream(scripted, upstream, behaviour, stream):
    # Silence is no reason to time out when it has heartbeats: that client goes by itself.
    model = own(behaviour)
    if stream:
        client(scripted).chat.completions.create(model=model, messages=HELLO, stream=True).close()
    else:
        with pytest.raises(openai.APITimeoutError):
            client(scripted, max_retries=0, timeout=0.5).chat.completions.create(
                model=model, messages=HELLO
            )
    upstream.wait_until_closed(model)
    assert len(upstream.asked(model)) == 1


def test_the_async_client_streams_and_is_cancelled(scripted, upstream):
    model = own("slow")

    async def many():
        options = {"base_url": f"{scripted['base_url']}/v1", "api_key": scripted["api_key"]}
        async with openai.AsyncOpenAI(**options) as asker:
            ask = asker.chat.completions.create

            async def one():
                stream = await ask(model="plain", messages=HELLO, stream=True)
                return "".join([p.choices[0].delta.content or "" async for p in stream])

            assert await asyncio.gather(*(one() for _ in range(16))) == [WELL] * 16

            begun = asyncio.Event()

            async def endless():
                async for part in await ask(model=model, messages=HELLO, stream=True):
                    if part.choices[0].delta.content:
                        begun.set()

            task = asyncio.create_task(endless())
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(asyncio.wait_for(many(), 60))
    upstream.wait_until_closed(model)


@pytest.mark.parametrize("stream", [False, True])
def test_an_idempotency_key_makes_one_run_of_two_requests(scripted, upstream, stream):
    model, key = own("plain"), {"Idempotency-Key": str(uuid.uuid4())}
    body = {"model": model, "messages": HELLO, "stream": stream, "extra_headers": key}
    ask = client(scripted).chat.completions.create
    if stream:
        first, second = list(ask(**body)), list(ask(**body))
        assert {part.id for part in first} == {part.id for part in second}
        assert text_of(first) == text_of(second) == WELL
    else:
        first, second = ask(**body), ask(**body)
        assert first.id == second.id
        assert first.choices == second.choices
        assert (first.usage, first.created) == (second.usage, second.created)
    assert len(upstream.asked(model)) == 1
    with pytest.raises(openai.UnprocessableEntityError) as raised:
        ask(**{**body, "temperature": 1})
    assert raised.value.code == "idempotency_key_reused"


def test_a_client_with_a_key_leaves_and_comes_back_to_the_same_answer(scripted, upstream):
    model, key = own("hang"), {"Idempotency-Key": str(uuid.uuid4())}
    ask = client(scripted).chat.completions.create
    body = {"model": model, "messages": HELLO, "stream": True, "extra_headers": key}
    first = ask(**body)
    begun = next(part for part in first if part.choices[0].delta.content)
    first.close()
    second = ask(**body)
    upstream.release(model)
    parts = list(second)
    assert {part.id for part in parts} == {begun.id}
    assert text_of(parts) == f"wait for{WELL}"
    assert len(upstream.asked(model)) == 1


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


def test_a_native_run_is_cancelled_and_a_foreign_cursor_refused(scripted, upstream):
    model = own("mute")
    headers = {"Authorization": f"Bearer {scripted['api_key']}"}
    with httpx.Client(base_url=scripted["base_url"], headers=headers, timeout=30) as http:
        run_id = http.post("/v1/runs", json={"model": model, "input": "hi"}).json()["id"]
        upstream.wait_until(lambda seen: any(r["model"] == model for r in seen["requests"]))
        assert http.post(f"/v1/runs/{run_id}/cancel").status_code in (200, 202)
        upstream.wait_until_closed(model)
        # The stream ends with the run.
        events = http.get(f"/v1/runs/{run_id}/events").text
        assert events.rstrip().split("event: ")[-1].startswith("run.cancelled")
        assert http.get(f"/v1/runs/{run_id}").json()["status"] == "cancelled"
        foreign = http.get(f"/v1/runs/{run_id}/events", headers={"Last-Event-ID": "12345"})
        assert (foreign.status_code, foreign.json()["code"]) == (410, "cursor_unknown")
        assert foreign.headers["content-type"] == "application/problem+json"


def test_litellm_is_an_upstream_like_any_other(litellm):
    assert "mock" in [model.id for model in client(litellm).models.list()]
    ask = client(litellm, max_retries=0).chat.completions.create
    whole = ask(model="mock", messages=HELLO).choices[0].message.content
    assert whole == text_of(ask(model="mock", messages=HELLO, stream=True))
    assert whole == "LiteLLM says hello through Baton."
    with pytest.raises(openai.RateLimitError):
        ask(model="refusing", messages=HELLO)
    with pytest.raises(openai.BadRequestError):
        ask(model="unheard-of", messages=HELLO)


def test_litellm_answers_by_its_fallback(litellm):
    ask = client(litellm, max_retries=0).chat.completions.create
    straight = openai.OpenAI(base_url=litellm["upstream_url"], api_key=litellm["upstream_key"], max_retries=0)
    control = list(straight.chat.completions.create(model="failing", messages=HELLO, stream=True))
    assert text_of(control) == "LiteLLM says hello through Baton."
    whole = ask(model="failing", messages=HELLO)
    assert whole.choices[0].message.content == text_of(control)
    streamed = list(ask(model="failing", messages=HELLO, stream=True))
    assert text_of(streamed) == text_of(control)
    assert {whole.model, streamed[-1].model} == {control[-1].model}
