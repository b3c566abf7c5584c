"""The stations of a round: prompts, answers, verdicts, pairs, and what became of held-out prompts.

rows        what one station hands to the next, a line for each prompt
walk        prompts: which are held out, which come in which round
harvest     the answers of a round
served      how a server gets a round's weights          started     one that a command starts
on_policy   whether it serves them
ruling      answers in, verdicts out                     journal     what a judge said on the way there
drift       whether a judge still says what it said      couples     answers and verdicts in, pairs out
standing    where the policy stands on held-out prompts
"""
