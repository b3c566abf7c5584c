"""The doctor: what would ruin a run, found in preference data before a model sees it.

examination    the order: facts of every judgement in one pass, rules, examples in a second pass
rules          every rule: severity, action, words            findings        columns to hits
looks          what is examined, and who looks at it          pairs, apart    pairs; completions on their own
facts          what is remembered of every judgement          intake, blocks  records to facts; facts of many blocks
texts          rules and numbers on one text                  labels          who agrees, what gives labels away, noise
measurements   columns to numbers, of any kind                token_counts    lengths in tokens, with a model
report         what is said, in Python and as JSON            triage          which findings stop a run
sentences      the report in words                            screen          on a terminal
remembered     the report of an earlier start, where nothing changed
drift          two audits side by side, and whether the data moved
page, figures  on a page with plots
"""
