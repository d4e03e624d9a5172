# The policies of s3sink. This module needs no provider.

# permissions of arn:aws-us-gov:iam::210987654321:role/3rd-party, to assume the role arn:aws-us-gov:iam::123456789012:role/it's/$(id)/${x}/3rd-party
output "permissions_3rd_party" {
  value = <<-EOT
    {
      "Version": "2012-10-17",
      "Statement": [
        {
          "Effect": "Allow",
          "Action": [
            "sts:AssumeRole"
          ],
          "Resource": [
            "arn:aws-us-gov:iam::123456789012:role/it's/$${$}(id)/$${$}{x}/3rd-party"
          ]
        }
      ]
    }
  EOT
}

# trust policy of arn:aws-us-gov:iam::123456789012:role/it's/$(id)/${x}/3rd-party, so that it can be assumed, and only so
output "trust_3rd_party" {
  value = <<-EOT
    {
      "Version": "2012-10-17",
      "Statement": [
        {
          "Effect": "Allow",
          "Principal": {
            "AWS": "arn:aws-us-gov:iam::210987654321:role/3rd-party"
          },
          "Action": [
            "sts:AssumeRole"
          ],
          "Condition": {
            "StringEquals": {
              "sts:ExternalId": [
                "workspace-7"
              ]
            }
          }
        }
      ]
    }
  EOT
}

# permissions of arn:aws-us-gov:iam::123456789012:role/it's/$(id)/${x}/3rd-party, to write below the prefix
output "permissions_3rd_party_2" {
  value = <<-EOT
    {
      "Version": "2012-10-17",
      "Statement": [
        {
          "Sid": "WriteObjects",
          "Effect": "Allow",
          "Action": [
            "s3:PutObject"
          ],
          "Resource": [
            "arn:aws-us-gov:s3:::acme-events/segment-logs/*"
          ]
        }
      ]
    }
  EOT
}
