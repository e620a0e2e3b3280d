// The Vercel AI SDK in four formats: text, a stream, a tool loop and an object in each. Prints one JSON object.
import { generateText, streamText, tool, stepCountIs, Output } from "ai";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { z } from "zod";

globalThis.AI_SDK_LOG_WARNINGS = false;
const baseURL = `${process.env.ADDRESS}/v1`;
const openai = createOpenAI({ baseURL, apiKey: "none" });
const models = {
  responses: openai.responses("Fake/m"),
  chat: openai.chat("Fake/m"),
  compatible: createOpenAICompatible({ name: "modelway", baseURL, supportsStructuredOutputs: true })("Fake/m"),
  anthropic: createAnthropic({ baseURL, apiKey: "none" })("Fake/m"),
};
const png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const seen = {};

for (const [name, model] of Object.entries(models)) {
  const own = (seen[name] = { looked: [] });
  const tools = {
    look: tool({
      description: "Looks at something",
      inputSchema: z.object({ at: z.string() }),
      execute: async ({ at }) => (own.looked.push(at), "blue"),
    }),
  };
  const prompt = "Hi";
  own.text = (await generateText({ model, prompt, maxRetries: 0 })).text;

  own.streamed = "";
  for await (const piece of streamText({ model, prompt, maxRetries: 0 }).textStream) own.streamed += piece;

  const looped = await generateText({ model, prompt, tools, stopWhen: stepCountIs(3), maxRetries: 0 });
  own.looped = [looped.text, looped.steps.length, looped.finishReason, looped.usage.outputTokens > 0];

  const stream = streamText({ model, prompt, tools, stopWhen: stepCountIs(3), maxRetries: 0 });
  own.loopedStreamed = await stream.text;

  const wanted = Output.object({ schema: z.object({ colour: z.string() }) });
  own.object = (await generateText({ model, prompt, output: wanted, maxRetries: 0 })).output;

  const content = [
    { type: "text", text: "What is it?" },
    { type: "image", image: png, mediaType: "image/png" },
  ];
  own.image = (await generateText({ model, messages: [{ role: "user", content }], maxRetries: 0 })).text;
}
console.log(JSON.stringify(seen));
