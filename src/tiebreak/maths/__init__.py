"""Pure functions: same input, same output, in milliseconds on a CPU.

losses     objectives and their table                logps      log-probabilities by token and by completion
packing    pairs to one packed row                   layout     pairs to padded rows, the oracle of the other
metrics    rewards, margins, accuracies              stats      intervals by resampling
intervals  intervals of shares by formula
"""
