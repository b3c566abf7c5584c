"""Answers of models to prompts.

local    by a model in this process        kept     remembered over a crash
"""
