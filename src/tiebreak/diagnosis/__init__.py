"""Named causes of what went wrong in a run, each with its evidence and what to do.

signals     what a diagnosis is read from        reading    from a run folder, or one at work, to its signals
wholeness   whether its parts are whole         unsettled  what so few pairs cannot tell
cause       what a cause is, and a finding       causes     all of them, in their order: the table
strides     how far the weights were moved       lessons    what the data taught
ends        how completions of the data end      harms      what became of the model
live        said once, while a run is at work
"""
