variable "sites" {
  description = "The two MWAA environments by id of the site: the environment's region, or a name if both are in one region. role is the name of the execution role."
  type = map(object({
    region      = string
    environment = string
    role        = string
  }))

  validation {
    condition     = length(var.sites) == 2
    error_message = "A DR set has two sites."
  }
}

variable "table_region" {
  description = "Region in which the tables are created: that of one of the sites, better the standby. The other region gets replicas."
  type        = string
}

variable "witness_region" {
  description = "Witness region of a state table with strong consistency. Empty if no region set has the two regions and a third one: the state table is then eventually consistent."
  type        = string
  default     = ""
}

variable "state_table" {
  description = "Name of the table with the state item, which names the active region."
  type        = string
  default     = "mwaa-dr-state"
}

variable "runs_table" {
  description = "Name of the table with the ledger of runs."
  type        = string
  default     = "mwaa-dr-runs"
}

variable "name" {
  description = "Prefix of the names of policies and stacks."
  type        = string
  default     = "mwaa-dr"
}

variable "agents_may_finish" {
  description = "Whether the execution roles may end the plan in the state item, so that an agent can finish a failover whose caller stopped. DAG code can then stop the DR set, but not move the active role."
  type        = bool
  default     = true
}

variable "agents_may_write_back" {
  description = "Whether the execution roles may write the whole state item, which only an eventually consistent table needs. DAG code can then move the active role."
  type        = bool
  default     = false
}

variable "notification_topic" {
  description = "ARN of the SNS topic for notifications of failovers. Empty for none."
  type        = string
  default     = ""
}

variable "notification_bus" {
  description = "ARN of the event bus for notifications of failovers. Empty for none."
  type        = string
  default     = ""
}

variable "airflow_role" {
  description = "Airflow role with which a failover calls the REST API of an environment."
  type        = string
  default     = "Op"
}

variable "table_keys" {
  description = "ARNs of customer-managed KMS keys of the tables, if you add such keys."
  type        = list(string)
  default     = []
}

variable "alarms" {
  description = "Whether to create alarms and a dashboard in the region of each site."
  type        = bool
  default     = true
}

variable "alarm_topics" {
  description = "ARN of the SNS topic that the alarms notify, by site."
  type        = map(string)
  default     = {}
}

variable "lease_s" {
  description = "The lease in the state item, in seconds, for the alarms."
  type        = number
  default     = 60
}

variable "package_version" {
  description = "Version of airflow-provider-mwaa-dr in the output requirements."
  type        = string
}
