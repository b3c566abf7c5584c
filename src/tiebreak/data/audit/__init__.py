"""The doctor's knowledge: facts of every pair, rules about them, and the numbers behind the findings. Pure.

facts, table, columns    what is remembered of every pair in place of its text
text                     rules on one text: controls, secrets, personal (forms), phrases, scripts
features, wordhashes     surface features; words and runs of words as numbers
near                     near-duplicates            graph      duplicates, contradictions, cycles
shortcut                 what length and surface give away
agreement, annotators    who agrees with whom       intervals  of shares, by formula
noise, margins, words    the share of flipped labels           crossfit   folds and fits
tokens                   lengths in tokens, with a model
rules                    every rule: severity, action, words
findings                 columns to hits            measuring  columns to numbers        report  what is said
"""
