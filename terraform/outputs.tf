locals {
  has_names = anytrue([for id, site in var.sites : id != site.region])
  environments = join(",", [
    for id, site in var.sites :
    id == site.region ? "${id}=${site.environment}" : "${id}=${site.environment}@${site.region}"
  ])
  options = merge(
    {
      "dr.enabled"            = "true"
      "dr.state_table"        = aws_dynamodb_table.state.name
      "dr.state_table_region" = var.table_region
      "dr.runs_table"         = aws_dynamodb_table.runs.name
      "dr.environments"       = local.environments
    },
    local.has_replicas ? { "dr.state_table_replicas" = join(",", local.regions) } : {},
    local.has_replicas && !local.is_strong ? { "dr.table_consistency" = "eventual" } : {},
    var.alarms ? { "dr.cloudwatch_metrics" = "true" } : {},
    var.notification_topic != "" ? { "dr.notification_topic" = var.notification_topic } : {},
    var.notification_bus != "" ? { "dr.notification_bus" = var.notification_bus } : {},
  )
}

output "airflow_configuration_options" {
  description = "Our options by site, for airflow_configuration_options of aws_mwaa_environment: merge them with your own."
  value       = { for id, site in var.sites : id => merge(local.options, local.has_names ? { "dr.site" = id } : {}) }
}

output "requirements" {
  description = "Our line for requirements.txt of both environments."
  value       = "airflow-provider-mwaa-dr==${var.package_version}"
}

output "policies" {
  description = "ARNs of the policies by purpose. Attach flipping, rest_api, notifying, publishing and putting_events to the role of a control environment, and to users of mwaa-dr."
  value       = { for name, policy in aws_iam_policy.shared : name => policy.arn }
}
