"""Clients of other makers that read streams of responses: `withdrawn_clients.py <reader> <URL>`.

The last two lines that each prints are the texts that it came to, of the withdrawn one and of the cancelled one.
"""

import asyncio
import json
import sys


def openai(url):
    from openai import OpenAI

    with OpenAI(base_url=url, api_key="none").responses.stream(model="m", input="x") as stream:
        *_, last = stream
    return last.response.output_text


def agents(url):
    from agents import Agent, ModelBehaviorError, OpenAIResponsesModel, Runner, set_tracing_disabled
    from openai import AsyncOpenAI

    set_tracing_disabled(True)

    async def read():
        model = OpenAIResponsesModel("m", AsyncOpenAI(base_url=url, api_key="none"))
        run = Runner.run_streamed(Agent(name="reader", model=model), "x")
        try:
            async for _ in run.stream_events():
                pass
        except ModelBehaviorError as error:
            return str(error)
        return run.final_output

    return asyncio.run(read())


def langchain(url):
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(model="m", base_url=url, api_key="none", use_responses_api=True)
    return "".join(part.text for part in chat.stream("x"))


def pydantic_ai(url):
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    async def read():
        agent = Agent(OpenAIResponsesModel("m", provider=OpenAIProvider(base_url=url, api_key="none")))
        async with agent.run_stream("x") as stream:
            return await stream.get_output()

    return asyncio.run(read())


def litellm(url):
    import litellm

    # It asks for a stream only of models that it knows.
    stream = litellm.responses(model="openai/gpt-4o", api_base=url, api_key="none", input="x", stream=True)
    last = list(stream)[-1].response
    texts = [part for item in last.output if item.type == "message" for part in item.content]
    return "".join(part.text for part in texts)


if __name__ == "__main__":
    reader, url = sys.argv[1:]
    for stream in ("text_with_reset", "cancel"):
        print(json.dumps(globals()[reader](f"{url}/{stream}/v1")))
