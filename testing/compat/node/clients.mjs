// Clients of other makers, unmodified: `clients.mjs <client> <base URL> <API key> <model>` prints the answer.
// The model calls `pay` with `{"amount": 7}` and repeats the result of the call.
import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Agent, OpenAIChatCompletionsModel, Runner, setTracingDisabled, tool as agentTool } from "@openai/agents";
import { generateText, stepCountIs, streamText, tool } from "ai";
import OpenAI from "openai";
import { z } from "zod";

const inputSchema = z.object({ amount: z.number() });
const prompt = "Pay seven";

/** Runs the tool loop of the Vercel AI SDK, whole and streamed; the first step has to call a tool. */
async function aiSdk(model) {
  const pay = tool({ description: "Pays an amount.", inputSchema, execute: async ({ amount }) => `paid ${amount}` });
  const asked = {
    model, prompt, tools: { pay }, stopWhen: stepCountIs(3),
    prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? "required" : "auto" }),
  };
  const whole = await generateText(asked);
  assert.equal(whole.steps.length, 2);
  const streamed = streamText(asked);
  let text = "";
  for await (const piece of streamed.textStream) text += piece;
  assert.equal(text, whole.text);
  assert.equal(await streamed.finishReason, "stop");
  return whole.text;
}

const clients = {
  ai_sdk_openai: (baseURL, apiKey, model) => aiSdk(createOpenAI({ baseURL, apiKey }).chat(model)),
  ai_sdk_openai_compatible: (baseURL, apiKey, model) =>
    aiSdk(createOpenAICompatible({ name: "other", baseURL, apiKey, includeUsage: true }).chatModel(model)),
  async agents_js(baseURL, apiKey, model) {
    setTracingDisabled(true);
    const pay = agentTool({
      name: "pay", description: "Pays an amount.", parameters: inputSchema, execute: async ({ amount }) => `paid ${amount}`,
    });
    const upstream = new OpenAIChatCompletionsModel(new OpenAI({ baseURL, apiKey }), model);
    const agent = new Agent({
      name: "payer", instructions: "Pay.", tools: [pay], model: upstream, modelSettings: { toolChoice: "required" },
    });
    const runner = new Runner();
    const whole = await runner.run(agent, prompt);
    const streamed = await runner.run(agent, prompt, { stream: true });
    await streamed.completed;
    assert.equal(streamed.finalOutput, whole.finalOutput);
    return whole.finalOutput;
  },
};

const [client, ...where] = process.argv.slice(2);
console.log(await clients[client](...where));
