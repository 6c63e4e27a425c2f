locals {
  regions       = distinct([for site in var.sites : site.region])
  other_regions = [for region in local.regions : region if region != var.table_region]
  is_strong     = var.witness_region != ""
  has_replicas  = length(local.other_regions) > 0
}

resource "aws_dynamodb_table" "state" {
  region                      = var.table_region
  name                        = var.state_table
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "state_id"
  deletion_protection_enabled = true
  # An eventually consistent table needs a stream for its replication.
  stream_enabled   = local.has_replicas && !local.is_strong
  stream_view_type = local.has_replicas && !local.is_strong ? "NEW_AND_OLD_IMAGES" : null

  attribute {
    name = "state_id"
    type = "S"
  }

  server_side_encryption {
    enabled = true
  }

  point_in_time_recovery {
    enabled = true
  }

  dynamic "replica" {
    for_each = local.other_regions

    content {
      region_name                 = replica.value
      consistency_mode            = local.is_strong ? "STRONG" : "EVENTUAL"
      point_in_time_recovery      = true
      deletion_protection_enabled = true
    }
  }

  dynamic "global_table_witness" {
    for_each = local.is_strong ? [var.witness_region] : []

    content {
      region_name = global_table_witness.value
    }
  }

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_dynamodb_table" "runs" {
  region                      = var.table_region
  name                        = var.runs_table
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "pk"
  range_key                   = "sk"
  deletion_protection_enabled = true
  stream_enabled              = local.has_replicas
  stream_view_type            = local.has_replicas ? "NEW_AND_OLD_IMAGES" : null

  attribute {
    name = "pk"
    type = "S"
  }

  attribute {
    name = "sk"
    type = "S"
  }

  server_side_encryption {
    enabled = true
  }

  point_in_time_recovery {
    enabled = true
  }

  ttl {
    attribute_name = "expires_at"
    enabled        = true
  }

  # Each item has one writer, so eventual consistency is sufficient. A strongly consistent table has no expiry.
  dynamic "replica" {
    for_each = local.other_regions

    content {
      region_name                 = replica.value
      consistency_mode            = "EVENTUAL"
      point_in_time_recovery      = true
      deletion_protection_enabled = true
    }
  }

  lifecycle {
    prevent_destroy = true
  }
}
