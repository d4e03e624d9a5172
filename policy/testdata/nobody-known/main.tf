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

# permissions of the caller, to assume the role arn:aws:iam::123456789012:role/S3Sink
# Attach module.policies.permissions_caller to the caller.

# permissions of arn:aws:iam::123456789012:role/S3Sink, to write below the prefix
# If it exists: terraform import aws_iam_role_policy.permissions_S3Sink 'S3Sink:s3sink-write'
resource "aws_iam_role_policy" "permissions_S3Sink" {
  name   = "s3sink-write"
  role   = "S3Sink"
  policy = module.policies.permissions_S3Sink
}

# key policy of the key, if its policy does not leave it to IAM
# Add the statements of module.policies.key to the key's policy. A resource
# "aws_kms_key_policy" would replace the policy.
