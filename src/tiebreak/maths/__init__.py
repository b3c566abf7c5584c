"""Pure functions: same input, same output, in milliseconds on a CPU.

objectives/   objectives and their table              losses     what an objective answers
logps         log-probabilities by token, by completion   metrics    what a step tells about itself
packing       examples to one packed row              layout     examples to padded rows, the oracle of the other
stats         intervals by resampling                 intervals  intervals of shares by formula
two_samples   whether two samples differ, by histograms or intervals
distributions    numbers of a whole next-token distribution
paired        before and after, for verdicts          power      how many items a question needs
length_control   a win rate at equal length           diffusion  preferences between images
kl            how far a policy is from its reference, by its own samples
frontier      win rates at the same KL, and the Pareto front
dealing       which process gets which examples of a step
scale         bytes held and sent, and seconds, on many GPUs    gpus   kinds of them
pairing       which of one prompt's candidates become pairs
"""
