"""Many runs in one folder, each an ordinary run that is done once.

campaign   runs one after the other, each as it was planned
stages     the next one starts from what the last one learned
sweep      they differ in a few settings, and the best of them is found
trials     one run of a sweep, and how it ended
proposals  which settings are tried next, and which trial ends early
launchers  where trials run                               outlook    what a sweep would try, and what it takes
rounds     each trains on pairs that the one before it wrote
lineup     who starts, compares and answers in each round foresight  what rounds would ask, and what it costs
ledger     what became of each round                      halting    why rounds end early
relay      the stations of all rounds in their order
appraisal  where each round's policy stands               bench      who judges its answers
ranking    what trials show, and how much of it was luck
"""
