// The official Node SDK, unchanged, against a live Baton. Run by test_node_sdk.py.
import assert from "node:assert/strict";
import test from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import OpenAI, {
  APIConnectionTimeoutError, APIError, APIUserAbortError, AuthenticationError, BadRequestError, UnprocessableEntityError,
} from "openai";

const { BATON_BASE_URL: baseURL, BATON_API_KEY: apiKey, BATON_SCRIPTED_URL, BATON_SCRIPTED_KEY, UPSTREAM_URL } =
  process.env;
const demo = new OpenAI({ baseURL, apiKey });
const scripted = new OpenAI({ baseURL: BATON_SCRIPTED_URL, apiKey: BATON_SCRIPTED_KEY, maxRetries: 0 });
const question = [{ role: "user", content: "What is 15% of 847?" }];
/** A model that behaves so, for one test alone. */
const own = (behaviour) => `${behaviour}-${crypto.randomUUID()}`;
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
  const runner = scripted.chat.completions.stream({ model: own("tools"), messages: hello, tools });
  const { message, finish_reason } = (await runner.finalChatCompletion()).choices[0];
  assert.equal(finish_reason, "tool_calls");
  assert.deepEqual(message.tool_calls.map((call) => call.function.arguments), ['{"city":"Paris"}', '{"city":"Rome"}']);
});

test("failures of the upstream are repeated by the SDK, and heartbeats are skipped", async () => {
  const again = new OpenAI({ baseURL: BATON_SCRIPTED_URL, apiKey: BATON_SCRIPTED_KEY, maxRetries: 1 });
  const answer = await again.chat.completions.create({ model: own("down-3"), messages: hello });
  assert.equal(answer.choices[0].message.content, "All is well: naïve 🦀");

  const model = own("mute");
  // The head alone, with the first heartbeat, answers the request.
  const stream = await scripted.chat.completions.create({ model, messages: hello, stream: true });
  await fetch(`${UPSTREAM_URL}/release/${model}`);
  let text = "";
  for await (const part of stream) text += part.choices[0].delta.content ?? "";
  assert.equal(text, "All is well: naïve 🦀");
});

test("errors have their types", async () => {
  const wrong = new OpenAI({ baseURL, apiKey: "bt_dev_wrong", maxRetries: 0 });
  await assert.rejects(wrong.chat.completions.create({ model: "demo", messages: question }), AuthenticationError);
  await assert.rejects(demo.chat.completions.create({ model: "demo", messages: question, n: 2 }), BadRequestError);
});

test("a stream that breaks raises and is not an answer", async () => {
  const model = own("cut");
  const stream = await scripted.chat.completions.create({ model, messages: hello, stream: true });
  let text = "";
  await assert.rejects(async () => {
    for await (const part of stream) {
      text += part.choices[0].delta.content ?? "";
      if (text) await fetch(`${UPSTREAM_URL}/release/${model}`);
    }
  }, (error) => error instanceof APIError && error.code.startsWith("upstream_"));
  assert.notEqual(text, "");
});

/** Waits until the upstream's answer was broken off; the test's own time limit ends this. */
async function upstreamClosed(model) {
  while (!(await (await fetch(`${UPSTREAM_URL}/seen`)).json()).closed_early.includes(model)) await pause(20);
}

test("an aborted stream ends, and the upstream's with it", { timeout: 30_000 }, async () => {
  const model = own("slow");
  const stream = await scripted.chat.completions.create({ model, messages: hello, stream: true });
  for await (const part of stream) {
    if (part.choices[0].delta.content) stream.controller.abort();
  }
  await upstreamClosed(model);
});

test("an aborted request and one that times out stop the upstream", { timeout: 30_000 }, async () => {
  const timed = own("slow");
  const asked = scripted.chat.completions.create({ model: timed, messages: hello }, { timeout: 500 });
  await assert.rejects(asked, APIConnectionTimeoutError);
  await upstreamClosed(timed);

  const model = own("mute");
  const abort = new AbortController();
  const request = scripted.chat.completions.create({ model, messages: hello }, { signal: abort.signal });
  const rejected = assert.rejects(request, APIUserAbortError);
  while (!(await (await fetch(`${UPSTREAM_URL}/seen`)).json()).requests.some((r) => r.model === model)) await pause(20);
  abort.abort();
  await rejected;
  await upstreamClosed(model);
});

test("an idempotency key makes one run of two requests", async () => {
  const model = own("plain"), headers = { "Idempotency-Key": crypto.randomUUID() };
  const ask = (more) => scripted.chat.completions.create({ model, messages: hello, ...more }, { headers });
  const [first, second] = [await ask(), await ask()];
  assert.equal(first.id, second.id);
  assert.deepEqual(first.choices, second.choices);
  await assert.rejects(ask({ temperature: 1 }), UnprocessableEntityError);
});
