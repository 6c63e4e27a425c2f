"""
The history: ended runs and their task instances, which a standby shows as the active site does.

It is separate from the ledger. The ledger decides what executes; the history only changes what users see. An imported
run never decides which run is next: see :mod:`.bars`.
"""
