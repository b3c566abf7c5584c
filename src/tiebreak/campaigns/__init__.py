"""Many runs in one folder, each an ordinary run that is done once.

campaign   runs one after the other, each as it was planned
stages     the next one starts from what the last one learned
"""
