"""The edge: parse, call one verb, print, exit.

app     the application, and the commands about runs        data    the commands about preference data
gate    the command that decides                            judge   the command that asks a judge
gate    the command that decides                            registry    the commands about promoted models
"""
