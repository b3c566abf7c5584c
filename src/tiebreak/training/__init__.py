"""The verb train: from tokenised pairs to a better policy."""
