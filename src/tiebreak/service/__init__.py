"""A job service that OpenAI's own client drives: files, fine-tuning jobs, models and chat on one's own machine.

The server computes nothing: a job is a run in a process of its own, and so is whoever answers chats. What is known is
in one SQLite file and in folders, so that a server that is killed finds all of it again.

store        tables, transactions, ids             refusals     errors as clients read them
jobs         states, and events told once
completions  what may be asked of a chat           choices      the objects that answer it
stops        the text before a stop sequence       talk         the process that answers chats
chat         that process, as the server has it    upstream     another server that answers chats
"""
