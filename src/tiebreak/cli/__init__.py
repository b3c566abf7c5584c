"""The edge: parse, call one verb, print, exit.

app     the application, and the commands about runs        data    the commands about preference data
gate    the command that decides                            registry    the commands about promoted models
"""
