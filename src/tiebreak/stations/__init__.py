"""The stations of a round: prompts, answers, verdicts, pairs, and what became of held-out prompts.

rows        what one station hands to the next, a line for each prompt
couples     judged answers to pairs: guards, equal texts, and what became of each prompt and answer
"""
