"""The same as openai_client.py, with Azure's client: another path, another header, the same service.

python examples/azure_client.py pairs.jsonl
"""

import os
import sys
import time
from pathlib import Path

from openai import AzureOpenAI

client = AzureOpenAI(
    azure_endpoint=os.environ.get("AZURE_OPENAI_ENDPOINT", "http://127.0.0.1:8080"),
    api_key=os.environ["OPENAI_API_KEY"],
    api_version="2025-04-01-preview",
)
model = os.environ.get("MODEL", "smollm2-135m-instruct")
beta = {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.1, "n_epochs": 1}}}

file = client.files.create(file=Path(sys.argv[1]), purpose="fine-tune")
created = client.fine_tuning.jobs.with_raw_response.create(model=model, training_file=file.id, method=beta)
print(created.http_response.status_code, created.headers["location"])
job = created.parse()

while job.status not in ("succeeded", "failed", "cancelled"):
    time.sleep(2)
    job = client.fine_tuning.jobs.retrieve(job.id)
    print(job.status)

if job.fine_tuned_model is None:
    sys.exit(f"{job.status}: {job.error.message if job.error else 'no model'}")
question = {"role": "user", "content": "How do I get red wine out of a white shirt?"}
answer = client.chat.completions.create(model=job.fine_tuned_model, messages=[question], max_tokens=64, temperature=0)
print(f"\n{job.fine_tuned_model}: {answer.choices[0].message.content}")
