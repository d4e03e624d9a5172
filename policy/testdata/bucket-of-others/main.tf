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

# permissions of arn:aws:iam::210987654321:user/exporter, to write below the prefix
# If it exists: terraform import aws_iam_user_policy.permissions_exporter 'exporter:s3sink-write'
resource "aws_iam_user_policy" "permissions_exporter" {
  name   = "s3sink-write"
  user   = "exporter"
  policy = module.policies.permissions_exporter
}

# bucket policy of arn:aws:s3:::acme-events, because the bucket is in another account than whoever writes
# If it exists: terraform import aws_s3_bucket_policy.bucket acme-events
resource "aws_s3_bucket_policy" "bucket" {
  bucket = "acme-events"
  policy = module.policies.bucket
}
