"""The stations of a round: prompts, answers, verdicts, pairs, and what became of held-out prompts.

rows        what one station hands to the next, a line for each prompt
"""
