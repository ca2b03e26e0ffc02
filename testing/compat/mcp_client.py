"""OpenAI Agents SDK with hosted MCP tools, unmodified: `mcp_client.py BASE_URL API_KEY LABEL TOOL ARGUMENTS`."""

import asyncio
import json
import sys

from agents import Agent, HostedMCPTool, OpenAIResponsesModel, Runner, set_tracing_disabled
from openai import AsyncOpenAI

BASE_URL, API_KEY, LABEL, TOOL, ARGUMENTS = sys.argv[1:]
QUESTION = json.dumps({"name": f"{LABEL}__{TOOL}", "arguments": ARGUMENTS})


def approving(sdk, asked):
    """An agent with a callback that approves each call."""

    def approve(request):
        asked.append(request.data.name)
        return {"approve": True}

    config = {"type": "mcp", "server_label": LABEL, "require_approval": "always"}
    hosted = HostedMCPTool(tool_config=config, on_approval_request=approve)
    return Agent(name="careful", tools=[hosted], model=OpenAIResponsesModel("invoke", sdk))


async def main():
    """Whole, then streamed, once more with everything before as input, and with approvals."""
    set_tracing_disabled(True)
    async with AsyncOpenAI(base_url=BASE_URL, api_key=API_KEY) as sdk:
        hosted = HostedMCPTool(tool_config={"type": "mcp", "server_label": LABEL, "require_approval": "never"})
        model = OpenAIResponsesModel("invoke", sdk)
        agent = Agent(name="caller", instructions="Answer.", tools=[hosted], model=model)
        whole = await Runner.run(agent, QUESTION)
        streamed = Runner.run_streamed(agent, QUESTION)
        names = [event.name async for event in streamed.stream_events() if event.type == "run_item_stream_event"]
        again = await Runner.run(agent, [*whole.to_input_list(), {"role": "user", "content": QUESTION}])
        asked = []
        # All items are sent back with the answer, then the answer alone.
        approved = await Runner.run(approving(sdk, asked), QUESTION)
        linked = await Runner.run(approving(sdk, asked), QUESTION, auto_previous_response_id=True)
        results = [whole, streamed, again, approved, linked]
        return [result.final_output for result in results], names, asked


said, names, asked = asyncio.run(main())
print(json.dumps({"said": said, "names": names, "asked": asked}))
