terraform {
  required_version = ">= 1.3"

  required_providers {
    aws = {
      source = "hashicorp/aws"
      # The argument region of a resource, and strong consistency with a witness.
      version = ">= 6.14, < 7.0"
    }
  }
}
