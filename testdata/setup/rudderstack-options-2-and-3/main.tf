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

# permissions of arn:aws:iam::210987654321:user/s3-copy, to write below the prefix
resource "aws_iam_user_policy" "permissions_s3_copy" {
  name   = "s3sink-write"
  user   = "s3-copy"
  policy = module.policies.permissions_s3_copy
}

# bucket policy of arn:aws:s3:::acme-events, because the bucket is in another account than whoever writes
# This replaces the bucket's policy. If it has one, add the statements to it.
resource "aws_s3_bucket_policy" "bucket" {
  bucket = "acme-events"
  policy = module.policies.bucket
}

# key policy of arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab, because the key is in another account than whoever writes
# Add the statements of module.policies.key to the key's policy.
