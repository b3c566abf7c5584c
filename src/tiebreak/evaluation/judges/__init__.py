"""Whoever says which of two answers is better. The one place where judges live.

judge      what a judge is asked and says, and what makes one of a rating
"""
