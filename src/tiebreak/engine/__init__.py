"""The only floor that knows transformers and peft: models, scoring, references, generation."""
