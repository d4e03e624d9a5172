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

# permissions of arn:aws-us-gov:iam::210987654321:role/3rd-party, to assume the role arn:aws-us-gov:iam::123456789012:role/it's/$(id)/${x}/3rd-party
resource "aws_iam_role_policy" "permissions_3rd_party" {
  name   = "s3sink-assume-role"
  role   = "3rd-party"
  policy = module.policies.permissions_3rd_party
}

# trust policy of arn:aws-us-gov:iam::123456789012:role/it's/$(id)/${x}/3rd-party, so that it can be assumed, and only so
# If there is such a role, this replaces its trust policy. Keep the statements for others in it.
resource "aws_iam_role" "_3rd_party" {
  name               = "3rd-party"
  path               = "/it's/$(id)/$${x}/"
  assume_role_policy = module.policies.trust_3rd_party
}

# permissions of arn:aws-us-gov:iam::123456789012:role/it's/$(id)/${x}/3rd-party, to write below the prefix
resource "aws_iam_role_policy" "permissions_3rd_party_2" {
  name   = "s3sink-write"
  role   = aws_iam_role._3rd_party.name
  policy = module.policies.permissions_3rd_party_2
}
