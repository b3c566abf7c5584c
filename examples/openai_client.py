"""Train the bundled model on a file of pairs through `tiebreak serve`, with OpenAI's own client, and ask the result.

tiebreak serve --dir service &
export OPENAI_API_KEY=$(tiebreak serve keys add me --dir service)
tiebreak convert bundled pairs.jsonl --to openai
python examples/openai_client.py pairs.jsonl
"""

import os
import sys
import time
from pathlib import Path

from openai import OpenAI

client = OpenAI(base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8080/v1"))
model = os.environ.get("MODEL", "smollm2-135m-instruct")
beta = {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.1, "n_epochs": 1}}}

file = client.files.create(file=Path(sys.argv[1]), purpose="fine-tune")
job = client.fine_tuning.jobs.create(model=model, training_file=file.id, method=beta, suffix="first")

seen = 0
while job.status not in ("succeeded", "failed", "cancelled"):
    time.sleep(2)
    job = client.fine_tuning.jobs.retrieve(job.id)
    events = [*client.fine_tuning.jobs.list_events(job.id)]
    for event in reversed(events[: len(events) - seen]):
        print(event.message)
    seen = len(events)

if job.fine_tuned_model is None:
    sys.exit(f"{job.status}: {job.error.message if job.error else 'no model'}")
question = {"role": "user", "content": "How do I get red wine out of a white shirt?"}
answer = client.chat.completions.create(model=job.fine_tuned_model, messages=[question], max_tokens=64, temperature=0)
print(f"\n{job.fine_tuned_model}: {answer.choices[0].message.content}")
