"""A page on which people choose the better of two answers, blind; their votes become pairs and evidence.

The server knows which answer is which, the browser never does. What people chose is kept as it was seen, a log for each
of them, so that everything else can be computed again.

items        what is compared: a run's answers, a file's rows, a round's queue      order        who sees what, where
votes        what was chosen, in logs that only grow                                queue        the same for a round
desk         a review: its folder, who may vote, what is at hand
pages        what people see, and the addresses     entry        what every request passes
scene        an item as it is shown
"""
