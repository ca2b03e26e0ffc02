// Clients of other makers that read streams of responses: `withdrawn.mjs <reader> <URL>` prints the texts.
import { createOpenResponses } from "@ai-sdk/open-responses";
import { createOpenAI } from "@ai-sdk/openai";
import { streamText } from "ai";
import OpenAI from "openai";

const [reader, url] = process.argv.slice(2);

async function read(model) {
  const failures = [];
  const streamed = streamText({ model, prompt: "x", onError: ({ error }) => failures.push(error) });
  let text = "";
  for await (const piece of streamed.textStream) text += piece;
  if (failures.length > 0) throw failures[0];
  return text;
}

const readers = {
  async openai_node(baseURL) {
    const stream = new OpenAI({ baseURL, apiKey: "none" }).responses.stream({ model: "m", input: "x" });
    for await (const _ of stream);
    return (await stream.finalResponse()).output_text;
  },
  ai_sdk_openai: (baseURL) => read(createOpenAI({ baseURL, apiKey: "none" })("m")),
  ai_sdk_open_responses: (baseURL) =>
    read(createOpenResponses({ name: "baton", url: `${baseURL}/responses`, apiKey: "none" })("m")),
};

for (const stream of ["text_with_reset", "cancel"]) {
  console.log(JSON.stringify(await readers[reader](`${url}/${stream}/v1`)));
}
