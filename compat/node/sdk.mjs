// The official Node SDK, unchanged, against a live Baton. Run by test_node_sdk.py.
import assert from "node:assert/strict";
import test from "node:test";
import OpenAI, { APIError, AuthenticationError, BadRequestError } from "openai";

const { BATON_BASE_URL: baseURL, BATON_API_KEY: apiKey, BATON_SCRIPTED_URL, BATON_SCRIPTED_KEY } = process.env;
const demo = new OpenAI({ baseURL, apiKey });
const scripted = new OpenAI({ baseURL: BATON_SCRIPTED_URL, apiKey: BATON_SCRIPTED_KEY, maxRetries: 0 });
const question = [{ role: "user", content: "What is 15% of 847?" }];
const hello = [{ role: "user", content: "hi" }];

test("a chat runs the agent loop", async () => {
  const answer = await demo.chat.completions.create({ model: "demo", messages: question });
  assert.match(answer.choices[0].message.content, /127\.05/);
  assert.equal(answer.choices[0].finish_reason, "stop");
});

test("a streamed chat is the same answer in pieces", async () => {
  const stream = await demo.chat.completions.create({
    model: "demo", messages: question, stream: true, stream_options: { include_usage: true },
  });
  let text = "", usage, finish;
  for await (const part of stream) {
    usage = part.usage ?? usage;
    for (const choice of part.choices) {
      text += choice.delta.content ?? "";
      finish = choice.finish_reason ?? finish;
    }
  }
  assert.match(text, /127\.05/);
  assert.equal(finish, "stop");
  assert.ok(usage.total_tokens > 0);
});

test("client-side tools come back as tool calls", async () => {
  const tools = [{ type: "function", function: { name: "get_weather", parameters: { type: "object" } } }];
  const runner = scripted.chat.completions.stream({ model: "tools", messages: hello, tools });
  const { message, finish_reason } = (await runner.finalChatCompletion()).choices[0];
  assert.equal(finish_reason, "tool_calls");
  assert.equal(message.tool_calls[0].function.arguments, '{"city":"Paris"}');
});

test("errors have their types", async () => {
  const wrong = new OpenAI({ baseURL, apiKey: "bt_dev_wrong", maxRetries: 0 });
  await assert.rejects(wrong.chat.completions.create({ model: "demo", messages: question }), AuthenticationError);
  await assert.rejects(demo.chat.completions.create({ model: "demo", messages: question, n: 2 }), BadRequestError);
});

test("a stream that breaks raises and is not an answer", async () => {
  const stream = await scripted.chat.completions.create({ model: "cut", messages: hello, stream: true });
  let text = "";
  await assert.rejects(async () => {
    for await (const part of stream) text += part.choices[0].delta.content ?? "";
  }, (error) => error instanceof APIError && error.code.startsWith("upstream_"));
  assert.notEqual(text, "");
});

test("an aborted stream ends at once", async () => {
  const stream = await scripted.chat.completions.create({ model: "slow", messages: hello, stream: true });
  for await (const part of stream) {
    if (part.choices[0].delta.content) stream.controller.abort();
  }
  assert.ok(stream.controller.signal.aborted);
});
