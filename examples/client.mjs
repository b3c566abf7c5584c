// The same as openai_client.py, with OpenAI's client for node:
//
//     npm install openai
//     node examples/client.mjs pairs.jsonl

import fs from "node:fs";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.OPENAI_BASE_URL ?? "http://127.0.0.1:8080/v1" });
const model = process.env.MODEL ?? "smollm2-135m-instruct";
const ended = ["succeeded", "failed", "cancelled"];

const file = await client.files.create({ file: fs.createReadStream(process.argv[2]), purpose: "fine-tune" });
let job = await client.fineTuning.jobs.create({
  model,
  training_file: file.id,
  method: { type: "dpo", dpo: { hyperparameters: { beta: 0.1, n_epochs: 1 } } },
  metadata: { from: "node" },
});
console.log(job.id, job.status);

while (!ended.includes(job.status)) {
  await new Promise((done) => setTimeout(done, 2000));
  job = await client.fineTuning.jobs.retrieve(job.id);
}

const said = [];
for await (const event of client.fineTuning.jobs.listEvents(job.id, { limit: 5 })) {
  said.push(event.message);
}
console.log(said.reverse().join("\n"));

for await (const checkpoint of client.fineTuning.jobs.checkpoints.list(job.id)) {
  console.log(`checkpoint of step ${checkpoint.step_number}: ${checkpoint.fine_tuned_model_checkpoint}`);
}

if (!job.fine_tuned_model) {
  console.error(`${job.status}: ${job.error?.message ?? "no model"}`);
  process.exit(1);
}

const answer = await client.chat.completions.create({
  model: job.fine_tuned_model,
  messages: [{ role: "user", content: "How do I get red wine out of a white shirt?" }],
  max_tokens: 64,
  temperature: 0,
});
console.log(`\n${job.fine_tuned_model}: ${answer.choices[0].message.content}`);

const streamed = await client.chat.completions.create({
  model: job.fine_tuned_model,
  messages: [{ role: "user", content: "And out of a carpet?" }],
  max_tokens: 64,
  stream: true,
});
for await (const chunk of streamed) {
  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
}
console.log();
