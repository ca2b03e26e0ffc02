"""Conversations with the official Python SDK and the Agents SDK, unchanged, against a live Baton."""

import os
import subprocess
import xml.etree.ElementTree

import openai
import pytest

from conftest import HERE, ROOT

QUESTION = "What is 15% of 847?"


def client(ready):
    return openai.OpenAI(base_url=f"{ready['base_url']}/v1", api_key=ready["api_key"])


def text(item):
    return item.content[0].text


def test_a_conversation_is_made_changed_read_and_deleted(demo):
    sdk = client(demo)
    made = sdk.conversations.create(metadata={"user": "ada"})
    assert made.id.startswith("conv_")
    assert sdk.conversations.retrieve(made.id) == made
    changed = sdk.conversations.update(made.id, metadata={"user": "bob"})
    assert changed.metadata == {"user": "bob"}
    deleted = sdk.conversations.delete(made.id)
    assert (deleted.id, deleted.deleted) == (made.id, True)
    with pytest.raises(openai.NotFoundError):
        sdk.conversations.retrieve(made.id)


def test_responses_go_on_with_a_conversation(demo):
    sdk = client(demo)
    first = {"role": "user", "content": [{"type": "input_text", "text": "I am Ada."}]}
    conversation = sdk.conversations.create(items=[first])
    answered = sdk.responses.create(model="demo", input=QUESTION, conversation=conversation.id)
    assert answered.conversation.id == conversation.id
    assert "127.05" in answered.output_text
    again = {"id": conversation.id}
    with sdk.responses.stream(model="demo", input="Thanks.", conversation=again) as stream:
        thanked = stream.get_final_response()
    items = list(sdk.conversations.items.list(conversation.id, order="asc", limit=2))
    kinds = [item.type for item in items]
    assert kinds == [
        "message", "message", *[item.type for item in answered.output],
        "message", *[item.type for item in thanked.output],
    ]
    assert [text(items[0]), text(items[1])] == ["I am Ada.", QUESTION]
    assert text(items[-1]) == thanked.output_text
    newest = sdk.conversations.items.list(conversation.id, limit=1).data[0]
    assert newest == items[-1]
    assert sdk.conversations.items.retrieve(newest.id, conversation_id=conversation.id) == newest
    sdk.conversations.items.delete(newest.id, conversation_id=conversation.id)
    assert list(sdk.conversations.items.list(conversation.id, order="asc")) == items[:-1]


def test_items_of_calls_are_added_and_read(demo):
    sdk = client(demo)
    conversation = sdk.conversations.create()
    call = {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "call_1", "output": "12 degrees"}
    added = sdk.conversations.items.create(
        conversation.id, items=[{"role": "user", "content": "Weather?"}, call, output]
    )
    assert [item.type for item in added.data] == ["message", "function_call", "function_call_output"]
    assert added.data[2].output == "12 degrees"
    assert list(sdk.conversations.items.list(conversation.id, order="asc")) == added.data


@pytest.mark.parametrize("kind", ["web_search_call", "file_search_call", "computer_call"])
def test_an_item_that_is_not_stored_is_refused_by_its_type(demo, kind):
    sdk = client(demo)
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.conversations.create(items=[{"type": kind, "id": "x"}])
    assert refused.value.param == "items[0].type"


def test_a_session_of_the_agents_sdk_is_a_conversation(demo):
    """The steps are in conversations_client.py."""
    python = ROOT / "target" / "compat" / "clients" / "bin" / "python"
    ended = subprocess.run(
        [python, HERE / "conversations_client.py", f"{demo['base_url']}/v1", demo["api_key"]],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
