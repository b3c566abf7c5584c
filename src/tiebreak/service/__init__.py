"""A job service that OpenAI's own client drives: files, fine-tuning jobs, models and chat on one's own machine.

The server computes nothing: a job is a run in a process of its own, and so is whoever answers chats. What is known is
in one SQLite file and in folders, so that a server that is killed finds all of it again.

store        tables, transactions, ids             refusals     errors as clients read them
contract     what a client may say                 shown        what clients read of jobs, in whose words
translate    from a request to a configuration     catalog      which models there are, and their names
jobs         states, and events told once          keys         who asks, and how much they may ask for
shelf        files that are kept                   door         what every request passes
bodies       what requests say, read aside
fine_tuning  the addresses of jobs                 app          all addresses, and the threads behind them
supervisor   jobs carried out, by one thread       examining    the doctor's word on a job's files
troubles     what stands in the way of jobs
launching    how it is known that a worker lives   commands     workers that a scheduler runs
work         the program of a worker               telling      a run's rows as events and checkpoints
booking      how a job ends, once                    turns        whose turn it is, of several keys
incoming     forms with a file, streamed to disk   uploads      the addresses of files
parts        files that come in parts              hooks        who is told how jobs ended
retention    what is no longer needed
completions  what may be asked of a chat           choices      the objects that answer it
stops        the text before a stop sequence       talk         the process that answers chats
chat         that process, as the server has it    upstream     another server that answers chats
answering    the addresses of models and chats          listening    where the service listens, and until when
"""
