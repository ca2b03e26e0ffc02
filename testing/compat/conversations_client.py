"""The Agents SDK with its conversations session, unmodified: `conversations_client.py BASE_URL API_KEY`."""

import asyncio
import sys

from agents import Agent, OpenAIConversationsSession, OpenAIResponsesModel, Runner, function_tool
from agents import set_tracing_disabled
from openai import AsyncOpenAI, NotFoundError

BASE_URL, API_KEY = sys.argv[1:]


def get_weather(city: str) -> str:
    """The weather in a city."""
    return "12 degrees"


async def main():
    set_tracing_disabled(True)
    async with AsyncOpenAI(base_url=BASE_URL, api_key=API_KEY) as sdk:
        model = OpenAIResponsesModel("demo", sdk)
        agent = Agent(name="weather", instructions="Answer.", tools=[function_tool(get_weather)], model=model)
        session = OpenAIConversationsSession(openai_client=sdk)
        first = await Runner.run(agent, "The weather in Oslo?", session=session)
        assert "12 degrees" in first.final_output, first.final_output
        await Runner.run(agent, "Thanks.", session=session)
        items = await session.get_items()
        kinds = [item["type"] for item in items]
        assert kinds[:4] == ["message", "function_call", "function_call_output", "message"], kinds
        assert items[0]["content"][0]["text"] == "The weather in Oslo?", items[0]
        last = await session.pop_item()
        assert last == items[-1], last
        assert await session.get_items() == items[:-1]
        assert await session.get_items(limit=2) == items[-3:-1]
        conversation = await session._get_session_id()
        await session.clear_session()
        try:
            await sdk.conversations.retrieve(conversation)
        except NotFoundError:
            return
        raise AssertionError("the conversation is still there")


asyncio.run(main())
