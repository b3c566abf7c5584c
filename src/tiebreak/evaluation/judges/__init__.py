"""Whoever says which of two answers is better. The one place where judges live.

judge      what a judge is asked and says, and what makes one of a rating
table      the judges by their kinds                   given      what a judge may be given besides its settings
rules      functions that rate an answer               rewards    those that are built in
server     a model behind an endpoint                  endpoint   one request, within the caps, tried again
asking     how a language model is asked               kept       raw answers, kept by content
capped     what judging costs, and when it stops       calibration  whether a judge may be believed
reward_model  a sequence classifier with one label     local      a language model in this process, asked for A or B
damage     sound answers damaged on purpose, for a judge to be tested with
"""
