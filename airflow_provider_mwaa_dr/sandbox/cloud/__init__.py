"""The emulated AWS of a sandbox: tables with replicas, buckets, MWAA endpoints, and faults."""
