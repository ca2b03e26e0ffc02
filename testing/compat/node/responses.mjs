// The Responses routes with the official Node SDK and the Vercel AI SDK, unmodified:
// `responses.mjs <base URL> <API key>`, against the demo model.
import assert from "node:assert/strict";
import { createOpenResponses } from "@ai-sdk/open-responses";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";
import OpenAI from "openai";

const [baseURL, apiKey] = process.argv.slice(2);
const input = "What is 15% of 847?";
const sdk = new OpenAI({ baseURL, apiKey });

const whole = await sdk.responses.create({ model: "demo", input });
assert.equal(whole.status, "completed");
assert.match(whole.output_text, /127\.05/);

const helper = sdk.responses.stream({ model: "demo", input });
for await (const _ of helper);
assert.match((await helper.finalResponse()).output_text, /127\.05/);

const uncut = [];
const asked = { model: "demo", input: "Hello.", background: true, stream: true };
for await (const event of await sdk.responses.create(asked)) uncut.push(event);
const half = Math.floor(uncut.length / 2);
const after = { stream: true, starting_after: uncut[half].sequence_number };
const rest = [];
for await (const event of await sdk.responses.retrieve(uncut[0].response.id, after)) rest.push(event);
assert.deepEqual(rest, uncut.slice(half + 1));

const parameters = {
  type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false,
};
const get_weather = tool({
  description: "The weather in a city", inputSchema: jsonSchema(parameters), execute: async () => "12 degrees",
});
for (const model of [
  createOpenAI({ baseURL, apiKey })("demo"),
  createOpenResponses({ name: "baton", url: `${baseURL}/responses`, apiKey })("demo"),
]) {
  const question = { model, prompt: "The weather in Oslo?", tools: { get_weather }, stopWhen: stepCountIs(3) };
  const loop = await generateText(question);
  assert.equal(loop.steps.length, 2);
  assert.match(loop.text, /12 degrees/);
  const streamed = streamText(question);
  let text = "";
  for await (const piece of streamed.textStream) text += piece;
  assert.equal(text, loop.text);
}
