"""OpenAI Agents SDK with hosted MCP tools, unmodified: `mcp_client.py BASE_URL API_KEY LABEL TOOL ARGUMENTS`."""

import asyncio
import json
import sys

from agents import Agent, HostedMCPTool, OpenAIResponsesModel, Runner, set_tracing_disabled
from openai import AsyncOpenAI

BASE_URL, API_KEY, LABEL, TOOL, ARGUMENTS = sys.argv[1:]
QUESTION = json.dumps({"name": f"{LABEL}__{TOOL}", "arguments": ARGUMENTS})


async def main():
    """Whole, then streamed, then once more with everything before as input."""
    set_tracing_disabled(True)
    async with AsyncOpenAI(base_url=BASE_URL, api_key=API_KEY) as sdk:
        hosted = HostedMCPTool(tool_config={"type": "mcp", "server_label": LABEL, "require_approval": "never"})
        model = OpenAIResponsesModel("invoke", sdk)
        agent = Agent(name="caller", instructions="Answer.", tools=[hosted], model=model)
        whole = await Runner.run(agent, QUESTION)
        streamed = Runner.run_streamed(agent, QUESTION)
        names = [event.name async for event in streamed.stream_events() if event.type == "run_item_stream_event"]
        again = await Runner.run(agent, [*whole.to_input_list(), {"role": "user", "content": QUESTION}])
        return [whole.final_output, streamed.final_output, again.final_output], names


said, names = asyncio.run(main())
print(json.dumps({"said": said, "names": names}))
