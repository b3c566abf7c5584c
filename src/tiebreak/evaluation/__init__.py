"""The verb evaluate: what changed between reference and policy, on prompts that were never trained on."""
