"""A page on which people choose the better of two answers, blind; their votes become pairs and evidence.

The server knows which answer is which, the browser never does. What people chose is kept as it was seen, a log for each
of them, so that everything else can be computed again.

items        what is compared: a run's answers, a file's rows, a round's queue
order        who sees what, where                      votes        what was chosen, in logs that only grow
folder       what a review was made with               desk         a review: who may vote, what is at hand
queue        the same votes, as a round reads them     results      what votes come to
evidence     each number by its name, and its doubts   outcome      what is left: pairs, evidence
saying       the same in words                         scene        an item as it is shown
pages        what people see, and the addresses        entry        what every request passes
serving      where it is served, and until when        showing      all that a browser may know
"""
