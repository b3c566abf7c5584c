"""Whoever says which of two answers is better. The one place where judges live.

judge         what a judge is asked and says of two answers and of all to a prompt, and what makes one of a rating
table         the judges by their kinds                 given     what a judge may be given besides its settings
rules         functions that rate an answer             rewards   those that are built in
functions     a user's function: found, run, believed   signature what it takes, and what it is given
forms         completions as text, or as messages       people    votes, and a queue for those that are missing
server        a model behind an endpoint                endpoint  one request, within the caps, tried again
asking        how a language model is asked             kept      raw answers, kept by content
capped        what judging costs, and when it stops     calibration  whether a judge may be believed
reward_model  a sequence classifier with one label      local     a language model in this process, asked for A or B
own           the data's own, fitted on its pairs       damage    sound answers damaged on purpose
leaning       its fitted numbers, and how it decides    linear    what is learned from vectors of completions
vectors       an answer as a vector                     fitted    the data's own judge in a run folder
"""
