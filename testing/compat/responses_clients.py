"""Clients of other makers in Responses mode, unmodified: `responses_clients.py BASE_URL API_KEY`."""

import asyncio
import sys

from agents import Agent, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI, OpenAI
from pydantic_ai import Agent as PydanticAgent
from pydantic_ai.models.openai import OpenAIResponsesModel as PydanticModel
from pydantic_ai.models.openai import OpenAIResponsesModelSettings
from pydantic_ai.providers.openai import OpenAIProvider

BASE_URL, API_KEY = sys.argv[1:]
QUESTION = "The weather in Oslo?"


def get_weather(city: str) -> str:
    """The weather in a city."""
    return "12 degrees"


async def agents_sdk():
    """Whole, then streamed."""
    set_tracing_disabled(True)
    async with AsyncOpenAI(base_url=BASE_URL, api_key=API_KEY) as sdk:
        model = OpenAIResponsesModel("demo", sdk)
        agent = Agent(name="weather", instructions="Answer.", tools=[function_tool(get_weather)], model=model)
        whole = await Runner.run(agent, QUESTION)
        streamed = Runner.run_streamed(agent, QUESTION)
        async for _ in streamed.stream_events():
            pass
        return whole.final_output, streamed.final_output


def langchain():
    model = ChatOpenAI(model="demo", base_url=BASE_URL, api_key=API_KEY, use_responses_api=True)
    return str(model.invoke("What is 15% of 847?").content)


def pydantic_ai():
    """A second run goes on from the first by its id."""
    model = PydanticModel("demo", provider=OpenAIProvider(base_url=BASE_URL, api_key=API_KEY))
    settings = OpenAIResponsesModelSettings(openai_previous_response_id="auto")
    agent = PydanticAgent(model, tools=[get_weather], model_settings=settings)
    first = agent.run_sync(QUESTION)
    second = agent.run_sync("Thank you.", message_history=first.all_messages())
    before, after = (run.all_messages()[-1].provider_response_id for run in (first, second))
    with OpenAI(base_url=BASE_URL, api_key=API_KEY) as sdk:
        assert sdk.responses.retrieve(after).previous_response_id == before
    return first.output


whole, streamed = asyncio.run(agents_sdk())
for said, part in [
    (whole, "12 degrees"),
    (streamed, "12 degrees"),
    (langchain(), "127.05"),
    (pydantic_ai(), "12 degrees"),
]:
    assert part in said, said
