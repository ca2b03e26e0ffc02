"""Clients of other makers, unmodified: `clients.py <client> <base URL> <API key> <model>` prints the answer.

The model calls `pay` with `{"amount": 7}` and repeats the result of the call.
"""

import asyncio
import json
import sys


def agents(url, key, model):
    import openai
    from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled

    set_tracing_disabled(True)

    @function_tool
    def pay(amount: int) -> str:
        """Pays an amount."""
        return f"paid {amount}"

    upstream = OpenAIChatCompletionsModel(model, openai.AsyncOpenAI(base_url=url, api_key=key))
    agent = Agent(name="payer", instructions="Pay.", tools=[pay], model=upstream)

    async def both():
        whole = await Runner.run(agent, "Pay seven")
        streamed = Runner.run_streamed(agent, "Pay seven")
        async for _ in streamed.stream_events():
            pass
        assert streamed.final_output == whole.final_output
        return whole.final_output

    return asyncio.run(both())


def langchain(url, key, model):
    from langchain_core.messages import ToolMessage
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI

    @tool
    def pay(amount: int) -> str:
        """Pays an amount."""
        return f"paid {amount}"

    chat = ChatOpenAI(base_url=url, api_key=key, model=model)
    asked = chat.bind_tools([pay], tool_choice="any").invoke("Pay seven")
    (call,) = asked.tool_calls
    history = ["Pay seven", asked, ToolMessage(pay.invoke(call["args"]), tool_call_id=call["id"])]
    history[0] = ("user", history[0])
    return "".join(part.text for part in chat.bind_tools([pay]).stream(history))


def langgraph(url, key, model):
    import warnings

    from langchain_openai import ChatOpenAI

    warnings.simplefilter("ignore")
    from langgraph.prebuilt import create_react_agent

    def pay(amount: int) -> str:
        """Pays an amount."""
        return f"paid {amount}"

    agent = create_react_agent(ChatOpenAI(base_url=url, api_key=key, model=model), [pay])
    return agent.invoke({"messages": [("user", "Pay seven")]})["messages"][-1].text


def pydantic_ai(url, key, model):
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    agent = Agent(OpenAIChatModel(model, provider=OpenAIProvider(base_url=url, api_key=key)))

    @agent.tool_plain
    def pay(amount: int) -> str:
        """Pays an amount."""
        return f"paid {amount}"

    async def both():
        whole = await agent.run("Pay seven")
        async with agent.run_stream("Pay seven") as streamed:
            assert await streamed.get_output() == whole.output
        return whole.output

    return asyncio.run(both())


def instructor(url, key, model):
    import instructor
    import openai
    from pydantic import BaseModel

    class pay(BaseModel):
        amount: int

    chat = instructor.from_openai(openai.OpenAI(base_url=url, api_key=key))
    messages = [{"role": "user", "content": "Pay seven"}]
    made = chat.chat.completions.create(model=model, response_model=pay, messages=messages)
    return f"It says: paid {made.amount}"


def smolagents(url, key, model):
    from smolagents import ChatMessage, MessageRole, OpenAIServerModel, tool

    @tool
    def pay(amount: int) -> str:
        """Pays an amount.

        Args:
            amount: the amount
        """
        return f"paid {amount}"

    server = OpenAIServerModel(model_id=model, api_base=url, api_key=key)
    asked = [ChatMessage(role=MessageRole.USER, content=[{"type": "text", "text": "Pay seven"}])]
    (call,) = server.generate(asked, tools_to_call_from=[pay]).tool_calls
    arguments = call.function.arguments
    if isinstance(arguments, str):
        arguments = json.loads(arguments)
    return f"It says: {pay(**arguments)}"


def llm(url, key, model):
    from llm.default_plugins.openai_models import Chat

    def pay(amount: int) -> str:
        """Pays an amount."""
        return f"paid {amount}"

    chat = Chat(model_id=model, model_name=model, api_base=url, supports_tools=True)
    chat.key = key
    return chat.chain("Pay seven", tools=[pay], key=key).text()


PAY = {
    "type": "function",
    "function": {
        "name": "pay",
        "description": "Pays an amount.",
        "parameters": {
            "type": "object",
            "properties": {"amount": {"type": "integer"}},
            "required": ["amount"],
        },
    },
}


def litellm(url, key, model):
    import litellm

    litellm.telemetry = False
    where = {"model": f"openai/{model}", "api_base": url, "api_key": key, "tools": [PAY]}
    history = [{"role": "user", "content": "Pay seven"}]
    asked = litellm.completion(messages=history, tool_choice="required", **where).choices[0].message
    (call,) = asked.tool_calls
    result = f"paid {json.loads(call.function.arguments)['amount']}"
    history += [asked, {"role": "tool", "tool_call_id": call.id, "content": result}]
    whole = litellm.completion(messages=history, **where)
    pieces = list(litellm.completion(messages=history, stream=True, **where))
    made = litellm.stream_chunk_builder(pieces, messages=history)
    assert made.choices[0].message.content == whole.choices[0].message.content
    assert made.choices[0].finish_reason == whole.choices[0].finish_reason == "stop"
    return whole.choices[0].message.content


def inspect_ai(url, key, model):
    from inspect_ai import Task, eval
    from inspect_ai.dataset import Sample
    from inspect_ai.model import get_model
    from inspect_ai.scorer import includes
    from inspect_ai.solver import generate, use_tools
    from inspect_ai.tool import tool

    @tool
    def pay():
        async def execute(amount: int) -> str:
            """Pays an amount.

            Args:
                amount: the amount
            """
            return f"paid {amount}"

        return execute

    task = Task(
        dataset=[Sample(input="Pay seven", target="paid 7")],
        solver=[use_tools(pay()), generate()],
        scorer=includes(),
    )
    asked = get_model(f"openai-api/other/{model}", base_url=url, api_key=key)
    (log,) = eval(task, model=asked, display="none", log_dir="logs")
    assert log.status == "success", log.error
    assert log.results.scores[0].metrics["accuracy"].value == 1
    return log.samples[0].output.completion


if __name__ == "__main__":
    client, *where = sys.argv[1:]
    print(globals()[client](*where))
