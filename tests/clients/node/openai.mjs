// OpenAI's own SDK: chats, a tool loop, responses and errors. Prints one JSON object.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: `${process.env.ADDRESS}/v1`, apiKey: "none", maxRetries: 0 });
const model = "Fake/m";
const ask = [{ role: "user", content: "Hi" }];
const look = {
  name: "look",
  description: "Looks at something",
  parameters: { type: "object", properties: { at: { type: "string" } } },
};
const seen = {};

const whole = await client.chat.completions.create({ model, messages: ask });
seen.whole = whole.choices[0].message.content;

seen.streamed = "";
for await (const chunk of await client.chat.completions.create({ model, messages: ask, stream: true })) {
  seen.streamed += chunk.choices[0].delta.content ?? "";
}

seen.looked = [];
const tools = [
  {
    type: "function",
    function: { ...look, parse: JSON.parse, function: ({ at }) => (seen.looked.push(at), "blue") },
  },
];
for (const stream of [false, true]) {
  const runner = client.chat.completions.runTools({ model, messages: ask, tools, stream });
  seen[stream ? "looped_streamed" : "looped"] = await runner.finalContent();
}

const format = { type: "json_schema", json_schema: { name: "colour", schema: { type: "object" } } };
const parsed = await client.chat.completions.parse({ model, messages: ask, response_format: format });
seen.parsed = JSON.parse(parsed.choices[0].message.content);

const first = await client.responses.create({ model, input: "Hi", tools: [{ type: "function", ...look, strict: false }] });
const call = first.output.find((item) => item.type === "function_call");
const result = { type: "function_call_output", call_id: call.call_id, output: "blue" };
const follow = { model, previous_response_id: first.id, input: [result], tools: [{ type: "function", ...look, strict: false }] };
const stream = client.responses.stream(follow);
stream.on("response.output_text.delta", () => (seen.deltas = (seen.deltas ?? 0) + 1));
seen.response = (await stream.finalResponse()).output_text;
seen.retrieved = (await client.responses.retrieve(first.id)).output.length;

seen.prompt = (await client.completions.create({ model: "Other", prompt: "Once" })).choices[0].text;

try {
  await client.chat.completions.create({ model: "nobody's", messages: ask });
} catch (error) {
  seen.error = [error.constructor.name, error.status, error.code];
}
console.log(JSON.stringify(seen));
