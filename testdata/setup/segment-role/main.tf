# This is for more than one account: apply each part in the account of its ARN.
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

# permissions of arn:aws:iam::210987654321:role/apps/checkout, to assume the role arn:aws:iam::123456789012:role/S3Sink
resource "aws_iam_role_policy" "permissions_checkout" {
  name   = "s3sink-assume-role"
  role   = "checkout"
  policy = module.policies.permissions_checkout
}

# trust policy of arn:aws:iam::123456789012:role/S3Sink, so that it can be assumed, and only so
# If there is such a role, this replaces its trust policy. Keep the statements for others in it.
resource "aws_iam_role" "S3Sink" {
  name               = "S3Sink"
  path               = "/"
  assume_role_policy = module.policies.trust_S3Sink
}

# permissions of arn:aws:iam::123456789012:role/S3Sink, to write below the prefix
resource "aws_iam_role_policy" "permissions_S3Sink" {
  name   = "s3sink-write"
  role   = aws_iam_role.S3Sink.name
  policy = module.policies.permissions_S3Sink
}

# key policy of arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab, if its policy does not leave it to IAM
# Add the statements of module.policies.key to the key's policy.
