"""The stations of a round: prompts, answers, verdicts, pairs, and what became of held-out prompts.

rows        what one station hands to the next, a line for each prompt
ruling      answers in, verdicts out                     journal     what a judge said on the way there
drift       whether a judge still says what it said      couples     answers and verdicts in, pairs out
standing    where the policy stands on held-out prompts
"""
