"""The stations of a round: prompts, answers, verdicts, pairs, and what became of held-out prompts.

rows        what one station hands to the next, a line for each prompt
ruling      answers in, verdicts out                 journal     what a judge said until now
drift       how two words of a judge agree
"""
