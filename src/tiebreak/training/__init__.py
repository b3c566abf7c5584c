"""From tokenised pairs to a better policy. Read `loop` first.

loop           the training loop                             step           one optimizer step
order          which pairs are learned from at which step    start_check    what must hold before the first step
optimizer      AdamW and the learning rate                   recorder       metrics.jsonl, TensorBoard, other trackers
checkpoint     what training needs to go on                  preemption     signals that ask a run to end
opening        what a run stands on, its first files         preamble       what a run says before it trains
resumption     whether an attempt may go on                  trained        policy and reference, as a run left them
budget         tokens in memory at once                      parts          what a checkpoint is made of
pace           how long it takes, and a machine too busy    waiting        how threads wait for each other
choosing       which checkpoint becomes the policy          diagnosing     what is wrong, said when it shows
attempt        load, train, save, measure           settled      settings, proven before anything is read
company        what runs of a campaign share      moments      those of AdamW that another run left
taking_part    what each of several processes does in a step    launched    whether there are several
whereabouts    where a run finds its models, and the runs that made them
interpreter    how libraries are loaded, and a process ends
"""
