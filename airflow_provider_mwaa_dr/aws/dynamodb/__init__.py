"""The state table and the runs table in DynamoDB: schemas, limits, replicas and stores."""
