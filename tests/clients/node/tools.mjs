// Every client in Node calls a tool and goes on, whole and streamed. The first request demands the call, as a small
// model seldom begins one by itself. Prints one JSON object: what was called, and what was said then, by client.
import Anthropic from "@anthropic-ai/sdk";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, stepCountIs, streamText, tool } from "ai";
import { Ollama } from "ollama";
import OpenAI from "openai";
import { z } from "zod";

globalThis.AI_SDK_LOG_WARNINGS = false;
const { ADDRESS: address, MODEL: model } = process.env;
const baseURL = `${address}/v1`;
const asked = "What is the weather in Paris?";
const parameters = {
  type: "object",
  properties: { city: { type: "string", enum: ["Paris", "Rome"] } },
  required: ["city"],
  additionalProperties: false,
};
const weather = { name: "get_weather", description: "The weather in a city" };
const look = ({ city }) => `${city}: sunny, 23 degrees.`;
const limits = { temperature: 0, max_tokens: 64 };

async function chats(streamed) {
  const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
  const messages = [{ role: "user", content: asked }];
  const tools = [{ type: "function", function: { ...weather, parameters } }];
  const ask = async (tool_choice) => {
    const body = { model, messages, tools, tool_choice, ...limits };
    const answer = streamed
      ? await client.chat.completions.stream(body).finalChatCompletion()
      : await client.chat.completions.create(body);
    return answer.choices[0].message;
  };
  const first = await ask("required");
  const call = first.tool_calls[0];
  const called = JSON.parse(call.function.arguments);
  messages.push(first, { role: "tool", tool_call_id: call.id, content: look(called) });
  return { called, text: (await ask("none")).content };
}

async function responses(streamed) {
  const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
  const tools = [{ type: "function", strict: true, ...weather, parameters }];
  const ask = async (body) => {
    const whole = { model, tools, temperature: 0, max_output_tokens: 64, ...body };
    return streamed ? client.responses.stream(whole).finalResponse() : client.responses.create(whole);
  };
  const first = await ask({ input: asked, tool_choice: "required" });
  const call = first.output.find((item) => item.type === "function_call");
  const called = JSON.parse(call.arguments);
  const input = [{ type: "function_call_output", call_id: call.call_id, output: look(called) }];
  const second = await ask({ input, previous_response_id: first.id, tool_choice: "none" });
  return { called, text: second.output_text };
}

async function messages(streamed) {
  const client = new Anthropic({ baseURL: address, apiKey: "none", maxRetries: 0 });
  const said = [{ role: "user", content: asked }];
  const tools = [{ ...weather, input_schema: parameters }];
  const ask = async (type) => {
    const body = { model, messages: said, tools, tool_choice: { type }, ...limits };
    return streamed ? client.messages.stream(body).finalMessage() : client.messages.create(body);
  };
  const first = await ask("any");
  const call = first.content.find((block) => block.type === "tool_use");
  const result = { type: "tool_result", tool_use_id: call.id, content: look(call.input) };
  said.push({ role: "assistant", content: first.content }, { role: "user", content: [result] });
  return { called: call.input, text: (await ask("none")).content[0].text };
}

// Ollama's format cannot demand a call: not for a model that would not begin one.
async function ollama(streamed) {
  const client = new Ollama({ host: address });
  const said = [{ role: "user", content: asked }];
  const tools = [{ type: "function", function: { ...weather, parameters } }];
  const ask = async () => {
    if (!streamed) return (await client.chat({ model, messages: said, tools })).message;
    const whole = { role: "assistant", content: "", tool_calls: [] };
    for await (const { message } of await client.chat({ model, messages: said, tools, stream: true })) {
      whole.content += message.content;
      whole.tool_calls.push(...(message.tool_calls ?? []));
    }
    return whole;
  };
  const first = await ask();
  const called = first.tool_calls[0].function.arguments;
  said.push(first, { role: "tool", tool_name: weather.name, content: look(called) });
  return { called, text: (await ask()).content };
}

const vercel = (model) => async (streamed) => {
  let called;
  const request = {
    model,
    prompt: asked,
    tools: {
      get_weather: tool({
        description: weather.description,
        inputSchema: z.object({ city: z.enum(["Paris", "Rome"]) }),
        execute: async (input) => look((called = input)),
      }),
    },
    prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? "required" : "none" }),
    stopWhen: stepCountIs(3),
    temperature: 0,
    maxOutputTokens: 64,
    maxRetries: 0,
  };
  const text = streamed ? await streamText(request).text : (await generateText(request)).text;
  return { called, text };
};

const openai = createOpenAI({ baseURL, apiKey: "none" });
const clients = {
  "openai chats": chats,
  "openai responses": responses,
  "anthropic": messages,
  "vercel responses": vercel(openai.responses(model)),
  "vercel chats": vercel(openai.chat(model)),
  "vercel compatible": vercel(createOpenAICompatible({ name: "modelway", baseURL })(model)),
  "vercel anthropic": vercel(createAnthropic({ baseURL, apiKey: "none" })(model)),
  ...(process.env.CALLS_BY_ITSELF && { ollama }),
};
const seen = {};
for (const [name, trip] of Object.entries(clients)) {
  for (const streamed of [false, true]) seen[`${name} ${streamed ? "streamed" : "whole"}`] = await trip(streamed);
}
console.log(JSON.stringify(seen));
