"""A page on which people choose the better of two answers, blind; their votes become pairs and evidence.

The server knows which answer is which, the browser never does. What people chose is kept as it was seen, a log for each
of them, so that everything else can be computed again.

items        what is compared: a run's answers, a file's rows, a round's queue
order        who sees what, where                      votes        what was chosen, in logs that only grow
folder       what a review was made with               desk         a review: who may vote, what is at hand
results      what votes come to                        outcome      what is left of it: pairs, evidence for the gate
saying       the same in words                         serving      where it is served, and until when
"""
