// @ts-check
/** What can be tried: for each kind of answer a prompt, and what else the request has. */

/** @typedef {{ prompt: string, about: string, label?: string, code?: any }} Sample */

/** @type {Record<string, Sample>} */
export const SAMPLES = {
  text: { prompt: "Tell me a story about the sea and the moon.", about: "" },
  json: {
    prompt: "Describe a small harbour town.",
    about: "The answer has to match the schema. While it is written the view shows the value so far, which always parses.",
    label: "JSON Schema",
    code: {
      type: "object",
      properties: {
        name: { type: "string", minLength: 3, maxLength: 40 },
        people: { type: "integer", minimum: 1, maximum: 99999 },
        sights: { type: "array", items: { type: "string", minLength: 5, maxLength: 60 }, minItems: 2, maxItems: 4 },
      },
      required: ["name", "people", "sights"],
      additionalProperties: false,
    },
  },
  tools: {
    prompt: "What is the weather in Lisbon?",
    about: "The model asks for a tool, and you give the result. A small local model writes text instead: choose another one.",
    label: "Tools",
    code: [
      {
        name: "weather",
        description: "Get the weather of a city.",
        parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false },
      },
    ],
  },
  reasoning: {
    prompt: "A boat and its anchor cost 110 coins. The boat costs 100 more than the anchor. What does the anchor cost?",
    about: "A model that reasons shows its thoughts, where its provider lets it. This is sent as an OpenAI response in the background, and followed as any request: every dialect has the same log.",
  },
};
