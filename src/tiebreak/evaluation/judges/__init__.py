"""Whoever says which of two answers is better. The one place where judges live.

judge         what a judge is asked and says, and what makes one of a rating
reward_model  a sequence classifier with one label      local    a language model in this process, asked for A or B
damage        sound answers damaged on purpose, for a judge to be tested with
"""
