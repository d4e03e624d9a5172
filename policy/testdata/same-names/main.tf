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

# permissions of arn:aws-us-gov:iam::210987654321:role/3rd-party, to assume the role arn:aws-us-gov:iam::123456789012:role/it's/$(id)/${x}/3rd-party
# If it exists: terraform import aws_iam_role_policy.permissions_3rd_party '3rd-party:s3sink-assume-role'
resource "aws_iam_role_policy" "permissions_3rd_party" {
  name   = "s3sink-assume-role"
  role   = "3rd-party"
  policy = module.policies.permissions_3rd_party
}

# trust policy of arn:aws-us-gov:iam::123456789012:role/it's/$(id)/${x}/3rd-party, so that it can be assumed, and only so
# If it exists: terraform import aws_iam_role._3rd_party 3rd-party
resource "aws_iam_role" "_3rd_party" {
  name               = "3rd-party"
  path               = "/it's/$(id)/$${x}/"
  assume_role_policy = module.policies.trust_3rd_party
}

# permissions of arn:aws-us-gov:iam::123456789012:role/it's/$(id)/${x}/3rd-party, to write below the prefix
# If it exists: terraform import aws_iam_role_policy.permissions_3rd_party_2 '3rd-party:s3sink-write'
resource "aws_iam_role_policy" "permissions_3rd_party_2" {
  name   = "s3sink-write"
  role   = aws_iam_role._3rd_party.name
  policy = module.policies.permissions_3rd_party_2
}
