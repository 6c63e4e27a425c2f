"""The agent of a scheduler: a background thread that follows the state, keeps the ledger and closes runs."""
