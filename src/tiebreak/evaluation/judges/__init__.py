"""Whoever says which of two answers is better. The one place where judges live.

judge         what a judge is asked and says, and what makes one of a rating
reward_model  a sequence classifier with one label      local    a language model in this process, asked for A or B
own           the data's own, fitted on its pairs       damage   sound answers damaged on purpose
leaning       its fitted numbers, and how it decides    linear   what is learned from vectors of completions
vectors       an answer as a vector
"""
