"""What the policy is measured against.

kinds    what the reference is: the adapter off, another adapter, a frozen copy, nothing
stored   a reference that remembers                store    token log-probabilities on disk
moving   a reference that follows the policy
told     what it said, for all processes of a step
shard    how rows of them are written
"""
