"""`litellm.responses`, unmodified: `litellm_responses.py BASE_URL API_KEY`.

A function of the client is called, its result goes on from the first response, and the answer is streamed too.
"""

import sys

import litellm

BASE_URL, API_KEY = sys.argv[1:]
GET_WEATHER = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}

litellm.telemetry = False
# It asks for a stream only of models that it knows.
where = {"model": "openai/gpt-4o", "api_base": BASE_URL, "api_key": API_KEY, "tools": [GET_WEATHER]}
asked = litellm.responses(input="The weather in Oslo?", **where)
(call,) = [item for item in asked.output if item.type == "function_call"]
result = [{"type": "function_call_output", "call_id": call.call_id, "output": "12 degrees"}]
goes_on = {"input": result, "previous_response_id": asked.id, **where}


def text(response):
    messages = [item for item in response.output if item.type == "message"]
    return "".join(part.text for message in messages for part in message.content)


whole = text(litellm.responses(**goes_on))
assert "12 degrees" in whole, whole
*pieces, last = litellm.responses(stream=True, **goes_on)
shown = "".join(piece.delta for piece in pieces if piece.type == "response.output_text.delta")
assert shown == text(last.response) == whole, shown
