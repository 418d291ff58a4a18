"""The audit: what the log itself says, checked by code that shares nothing with the folds."""
