# Alarms and dashboard are those of mwaa-dr deploy --alarms, from the same template.

resource "aws_cloudformation_stack" "alarms" {
  for_each = var.alarms ? var.sites : {}

  region        = each.value.region
  name          = each.key == each.value.region ? "${var.name}-alarms" : "${var.name}-alarms-${each.key}"
  template_body = file("${path.module}/../airflow_provider_mwaa_dr/aws/deploy/templates/mwaa_dr_alarms.yaml")

  parameters = {
    EnvironmentName = each.value.environment
    LeaseSeconds    = var.lease_s
    AlarmTopicArn   = lookup(var.alarm_topics, each.key, "")
  }
}
