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

# permissions of arn:aws:iam::123456789012:user/rudder, to write below the prefix
resource "aws_iam_user_policy" "permissions_rudder" {
  name   = "s3sink-write"
  user   = "rudder"
  policy = module.policies.permissions_rudder
}
