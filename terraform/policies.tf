# The documents in the folder policies are generated from the same code as those of mwaa-dr deploy.

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

locals {
  site_ids = sort(keys(var.sites))
  values = {
    partition     = data.aws_partition.current.partition
    account       = data.aws_caller_identity.current.account_id
    state_table   = var.state_table
    runs_table    = var.runs_table
    region_a      = var.sites[local.site_ids[0]].region
    environment_a = var.sites[local.site_ids[0]].environment
    region_b      = var.sites[local.site_ids[1]].region
    environment_b = var.sites[local.site_ids[1]].environment
    airflow_role  = var.airflow_role
    topic         = var.notification_topic
    bus           = var.notification_bus
    table_keys    = var.table_keys
  }

  # For both execution roles.
  of_agents = [for name, is_on in {
    finishing        = var.agents_may_finish
    notifying        = true
    publishing       = var.notification_topic != ""
    putting_events   = var.notification_bus != ""
    writing_back     = var.agents_may_write_back
    using_table_keys = length(var.table_keys) > 0
  } : name if is_on]

  # For control environments and users: the output policies has their ARNs.
  of_users  = ["flipping", "reading", "rest_api"]
  documents = toset(concat(local.of_agents, local.of_users))

  attachments = { for pair in setproduct(local.site_ids, local.of_agents) : "${pair[0]} ${pair[1]}" => pair }
}

resource "aws_iam_policy" "execution" {
  for_each = var.sites

  name   = "${var.name}-execution-${each.key}"
  policy = templatefile("${path.module}/policies/execution.json", merge(local.values, { site = each.key }))
}

resource "aws_iam_policy" "shared" {
  for_each = local.documents

  name   = "${var.name}-${replace(each.key, "_", "-")}"
  policy = templatefile("${path.module}/policies/${each.key}.json", local.values)
}

resource "aws_iam_role_policy_attachment" "execution" {
  for_each = var.sites

  role       = each.value.role
  policy_arn = aws_iam_policy.execution[each.key].arn
}

resource "aws_iam_role_policy_attachment" "shared" {
  for_each = local.attachments

  role       = var.sites[each.value[0]].role
  policy_arn = aws_iam_policy.shared[each.value[1]].arn
}
