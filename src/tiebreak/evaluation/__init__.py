"""What changed between reference and policy, on prompts that were never trained on.

heldout    held-out pairs under reference and policy      samples     answers before and after
measuring  all that is measured, and its files            measures    which rows there are, and the table of them
rows       what a measure gives, item by item             gate        the verdict on rows, by rules
probe      neutral texts and questions, before and after  watching    who looks on while a run trains
judging    who says whether answers got better            judges/     whoever says which of two answers is better
draws      several answers to a prompt, scored            kept        what was scored, over a crash
repetition how much of an answer goes on with itself      diversity   how different answers are from each other
numerals   numbers as they are written in answers         leave       what a run may have run and asked
looking    looks at what the policy says meanwhile   sampled  what is counted on it
allowance  what looks may cost                  stopping when training ends, and the best checkpoint
thumbs     held-out completions on their own              duels       good ones set against bad ones
recorded   what a run's files say of it, part by part     contrast    two runs on what both measured
against    what a run was measured against, and when that is one model
made_of    what an evaluation was made of, and whether one that lies there was made of the same
"""
