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

# permissions of the caller, to assume the role arn:aws:iam::123456789012:role/S3Sink
# Attach module.policies.permissions_caller to the caller.

# permissions of arn:aws:iam::123456789012:role/S3Sink, to write below the prefix
resource "aws_iam_role_policy" "permissions_S3Sink" {
  name   = "s3sink-write"
  role   = "S3Sink"
  policy = module.policies.permissions_S3Sink
}

# key policy of the key, if its policy does not leave it to IAM
# Add the statements of module.policies.key to the key's policy.
