"""What a model can do, before and after: questions of a user's own, of public tests, of lm-eval.

taskfiles   task files to tasks, checked              templates   text with the fields of a row in braces
task        what a task is, and how it is asked       asking      tasks asked of reference and policy
choices     the likeliest of several answers          answered    generated answers: right, refused, not refused
plain_text  log-probability of texts                  scoring     how likely a model holds what stands behind something
harness     tasks of lm-eval
"""
