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

# permissions of whoever writes, to write below the prefix
# Attach module.policies.permissions_writer to whoever writes.
