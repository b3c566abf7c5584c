"""Answers of models to prompts.

answerer    what an answer is and how it is asked for
local       by a model in this process        kept     remembered over a crash
"""
