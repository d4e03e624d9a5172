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

# permissions of arn:aws:iam::210987654321:user/exporter, to write below the prefix
resource "aws_iam_user_policy" "permissions_exporter" {
  name   = "s3sink-write"
  user   = "exporter"
  policy = module.policies.permissions_exporter
}

# bucket policy of arn:aws:s3:::acme-events, because the bucket is in another account than whoever writes
# This replaces the bucket's policy. If it has one, add the statements to it.
resource "aws_s3_bucket_policy" "bucket" {
  bucket = "acme-events"
  policy = module.policies.bucket
}
