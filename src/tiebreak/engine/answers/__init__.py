"""Answers of models to prompts.

answerer    what an answer is and how it is asked for
local       by a model in this process             server    by an OpenAI-compatible server, in token ids
drawing     how the next token is chosen           kept      remembered over a crash
seating     those under way together               table     their keys and values, and attention over them
padded      by transformers' own generate, for models that cannot come to the table
wire        the way to a server: what may come     at_once   several requests at the same time
pieces      the text of an answer, handed out while it comes
steering    what a server is told besides prompts   spelling  the bytes of an answer's tokens
"""
