"""The golden streams of the Responses wire, read with the official SDK's types."""

import json
import pathlib

import pytest
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

GOLDEN = pathlib.Path(__file__).parents[2] / "crates" / "responses" / "golden"
EVENT = TypeAdapter(ResponseStreamEvent)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.sse")), ids=lambda path: path.stem)
def test_every_event_of_a_golden_stream_is_one_of_the_sdk(path):
    frames = path.read_text().split("\n\n")[:-1]
    events = [EVENT.validate_python(json.loads(frame.split("\ndata: ", 1)[1])) for frame in frames]
    assert events[0].type == "response.created"
    assert events[-1].type in {"response.completed", "response.failed", "response.incomplete"}
    numbers = [event.sequence_number for event in events]
    assert numbers == sorted(set(numbers))
