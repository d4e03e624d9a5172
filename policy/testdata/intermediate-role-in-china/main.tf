# This is for more than one account: apply each part in the account of its ARN.

# Terraform replaces a policy as a whole. If a role, an inline policy or a bucket
# policy of these names exists, import it before the first apply: "terraform plan"
# then shows the statements that would be removed. Without the import, apply fails
# for a role, and removes them unseen for the others. To keep them, merge:
#
#   data "aws_iam_policy_document" "merged" {
#     source_policy_documents = [file("existing.json"), module.policies.NAME]
#   }
#
# and use data.aws_iam_policy_document.merged.json in place of module.policies.NAME.

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
# If it exists: terraform import aws_iam_user_policy.permissions_service 'service:s3sink-assume-role'
resource "aws_iam_user_policy" "permissions_service" {
  name   = "s3sink-assume-role"
  user   = "service"
  policy = module.policies.permissions_service
}

# trust policy of arn:aws-cn:iam::210987654321:role/Exporter, so that it can be assumed, and only so
# If it exists: terraform import aws_iam_role.Exporter Exporter
resource "aws_iam_role" "Exporter" {
  name               = "Exporter"
  path               = "/"
  assume_role_policy = module.policies.trust_Exporter
}

# permissions of arn:aws-cn:iam::210987654321:role/Exporter, to assume the role arn:aws-cn:iam::123456789012:role/vendors/S3Sink
# If it exists: terraform import aws_iam_role_policy.permissions_Exporter 'Exporter:s3sink-assume-role'
resource "aws_iam_role_policy" "permissions_Exporter" {
  name   = "s3sink-assume-role"
  role   = aws_iam_role.Exporter.name
  policy = module.policies.permissions_Exporter
}

# trust policy of arn:aws-cn:iam::123456789012:role/vendors/S3Sink, so that it can be assumed, and only so
# If it exists: terraform import aws_iam_role.S3Sink S3Sink
resource "aws_iam_role" "S3Sink" {
  name               = "S3Sink"
  path               = "/vendors/"
  assume_role_policy = module.policies.trust_S3Sink
}

# permissions of arn:aws-cn:iam::123456789012:role/vendors/S3Sink, to write below the prefix
# If it exists: terraform import aws_iam_role_policy.permissions_S3Sink 'S3Sink:s3sink-write'
resource "aws_iam_role_policy" "permissions_S3Sink" {
  name   = "s3sink-write"
  role   = aws_iam_role.S3Sink.name
  policy = module.policies.permissions_S3Sink
}
