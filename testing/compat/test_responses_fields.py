"""Every field of a response's request that the official Python SDK knows is honoured, passed on or refused by name.

A field that a later SDK adds fails the first test until it has a row here, and a row in docs/responses.md.
"""

import re

import openai
import pytest
from openai.types import shared_params
from openai.types.responses import response_create_params, response_text_config_param

from conftest import ROOT
from test_responses import WEATHER, client

KNOWN = {
    "": [response_create_params.ResponseCreateParamsBase, response_create_params.ResponseCreateParamsStreaming],
    "reasoning.": [shared_params.Reasoning],
    "text.": [response_text_config_param.ResponseTextConfigParam],
    "stream_options.": [response_create_params.StreamOptions],
}
# The fields with others in them: those are rows of their own.
OUTER = {"reasoning", "text", "stream_options"}

# A value that has an effect, with the effect: a field of the response, or of the request to the upstream.
HONOURED = {
    "background": (True, {"background": True}),
    "conversation": (None, {}),
    "input": ("hello", {"object": "response"}),
    "context_management": (
        [{"type": "compaction", "compact_threshold": 1000}],
        {"status": "completed"},
    ),
    "instructions": ("Be brief.", {"instructions": "Be brief."}),
    "max_tool_calls": (3, {"max_tool_calls": 3}),
    "metadata": ({"k": "v"}, {"metadata": {"k": "v"}}),
    "model": (None, {}),
    "previous_response_id": (None, {}),
    "service_tier": ("flex", {"service_tier": "flex"}),
    "store": (False, {"store": False}),
    "stream": (None, {}),
    "stream_options.include_obfuscation": (False, {"object": "response"}),
    "tools": ([WEATHER], {"tools": [WEATHER]}),
}
PASSED_ON = {
    "max_output_tokens": (16, {"max_completion_tokens": 16}),
    "parallel_tool_calls": (False, {"parallel_tool_calls": False}),
    "prompt_cache_key": ("k", {"prompt_cache_key": "k"}),
    "prompt_cache_options": ({"mode": "implicit"}, {"prompt_cache_options": {"mode": "implicit"}}),
    "prompt_cache_retention": ("24h", {"prompt_cache_retention": "24h"}),
    "reasoning.effort": ("low", {"reasoning_effort": "low"}),
    "reasoning.summary": ("auto", {"reasoning": {"summary": "auto"}}),
    "safety_identifier": ("u", {"safety_identifier": "u"}),
    "temperature": (0.5, {"temperature": 0.5}),
    "text.format": ({"type": "json_object"}, {"response_format": {"type": "json_object"}}),
    "text.verbosity": ("low", {"verbosity": "low"}),
    "tool_choice": ("required", {"tool_choice": "required"}),
    "top_p": (0.5, {"top_p": 0.5}),
    "user": ("u", {"user": "u"}),
}
# Refused with every value, or with this one.
REFUSED = {
    "access_programs": {"cyber": "standard"},
    "image": {"context_compression": "auto"},
    "include": ["reasoning.encrypted_content"],
    "moderation": {"model": "m"},
    "prompt": {"id": "p"},
    "reasoning.context": "auto",
    "reasoning.generate_summary": "auto",
    "reasoning.mode": "pro",
    "top_logprobs": 3,
    "truncation": "auto",
}
# Shown by tests of their own: in test_responses.py and test_conversations.py.
ELSEWHERE = {"conversation", "model", "previous_response_id", "stream"}


def known_fields():
    for prefix, types in KNOWN.items():
        for kind in types:
            yield from (prefix + name for name in kind.__annotations__ if prefix or name not in OUTER)


def with_field(name, value):
    outer, _, inner = name.partition(".")
    return {outer: {inner: value} if inner else value}


def test_each_field_of_the_sdk_is_honoured_passed_on_or_refused():
    known = set(known_fields())
    rows = [*HONOURED, *PASSED_ON, *REFUSED]
    assert sorted(rows) == sorted(known)
    # A table of the docs names each, and calls those refused that are.
    table = {}
    for line in (ROOT / "docs" / "responses.md").read_text().splitlines():
        cells = line.split("|")
        if line.startswith("| `") and len(cells) == 4:
            table |= {name: cells[2].strip() for name in re.findall(r"`([^`]+)`", cells[1])}
    for name in known:
        said = table.get(name) or table[name.partition(".")[0]]
        if name in HONOURED:
            assert said.startswith(("honoured", "`include_obfuscation`")), name
        elif name in PASSED_ON:
            assert said.startswith("passed on"), name
        else:
            assert said.startswith(("refused", "only")), name


@pytest.mark.parametrize("name", sorted(set(HONOURED) - ELSEWHERE))
def test_an_honoured_field_shows_in_the_response(scripted, name):
    value, effect = HONOURED[name]
    body = {"model": "plain", "input": "hello", **with_field(name, value)}
    response = client(scripted).responses.create(**body).to_dict()
    for key, shown in effect.items():
        assert response[key] == shown


@pytest.mark.parametrize("name", sorted(PASSED_ON))
def test_a_field_that_is_passed_on_reaches_the_upstream(scripted, upstream, name):
    value, effect = PASSED_ON[name]
    body = {"model": f"plain-{name}", "input": "hello", **with_field(name, value)}
    # Upstreams refuse a choice among no tools.
    tools = [WEATHER] if name in {"tool_choice", "parallel_tool_calls"} else []
    client(scripted).responses.create(**body, tools=tools)
    [asked] = upstream.asked(f"plain-{name}")
    for key, sent in effect.items():
        assert asked[key] == sent


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_refused_field_is_named(scripted, upstream, name):
    body = {"model": f"plain-refused-{name}", "input": "hello", **with_field(name, REFUSED[name])}
    with pytest.raises(openai.BadRequestError) as refused:
        client(scripted).responses.create(**body)
    assert refused.value.param.startswith(name)
    assert upstream.asked(body["model"]) == []
