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

# permissions of arn:aws-cn:iam::210987654321:user/service, to assume the role arn:aws-cn:iam::210987654321:role/Exporter
resource "aws_iam_user_policy" "permissions_service" {
  name   = "s3sink-assume-role"
  user   = "service"
  policy = module.policies.permissions_service
}

# trust policy of arn:aws-cn:iam::210987654321:role/Exporter, so that it can be assumed, and only so
# If there is such a role, this replaces its trust policy. Keep the statements for others in it.
resource "aws_iam_role" "Exporter" {
  name               = "Exporter"
  path               = "/"
  assume_role_policy = module.policies.trust_Exporter
}

# permissions of arn:aws-cn:iam::210987654321:role/Exporter, to assume the role arn:aws-cn:iam::123456789012:role/vendors/S3Sink
resource "aws_iam_role_policy" "permissions_Exporter" {
  name   = "s3sink-assume-role"
  role   = aws_iam_role.Exporter.name
  policy = module.policies.permissions_Exporter
}

# trust policy of arn:aws-cn:iam::123456789012:role/vendors/S3Sink, so that it can be assumed, and only so
# If there is such a role, this replaces its trust policy. Keep the statements for others in it.
resource "aws_iam_role" "S3Sink" {
  name               = "S3Sink"
  path               = "/vendors/"
  assume_role_policy = module.policies.trust_S3Sink
}

# permissions of arn:aws-cn:iam::123456789012:role/vendors/S3Sink, to write below the prefix
resource "aws_iam_role_policy" "permissions_S3Sink" {
  name   = "s3sink-write"
  role   = aws_iam_role.S3Sink.name
  policy = module.policies.permissions_S3Sink
}
