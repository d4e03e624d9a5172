terraform {
  required_providers {
    aws = {
      source = "hashicorp/aws"
    }
  }
}

module "policies" {
  source = "./policies"
}

# permissions of whoever writes, to write below the prefix
# Attach module.policies.permissions_writer to whoever writes.
