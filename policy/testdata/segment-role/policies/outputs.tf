# The policies of s3sink. This module needs no provider.

# permissions of arn:aws:iam::210987654321:role/apps/checkout, to assume the role arn:aws:iam::123456789012:role/S3Sink
output "permissions_checkout" {
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
            "arn:aws:iam::123456789012:role/S3Sink"
          ]
        }
      ]
    }
  EOT
}

# trust policy of arn:aws:iam::123456789012:role/S3Sink, so that it can be assumed, and only so
output "trust_S3Sink" {
  value = <<-EOT
    {
      "Version": "2012-10-17",
      "Statement": [
        {
          "Effect": "Allow",
          "Principal": {
            "AWS": "arn:aws:iam::210987654321:role/apps/checkout"
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

# permissions of arn:aws:iam::123456789012:role/S3Sink, to write below the prefix
output "permissions_S3Sink" {
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
            "arn:aws:s3:::acme-events/path/prefix/segment-logs/*"
          ]
        },
        {
          "Sid": "UseKeyThroughS3",
          "Effect": "Allow",
          "Action": [
            "kms:GenerateDataKey"
          ],
          "Resource": [
            "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
          ],
          "Condition": {
            "StringLike": {
              "kms:ViaService": [
                "s3.*.amazonaws.com",
                "s3.*.amazonaws.com.cn"
              ]
            }
          }
        }
      ]
    }
  EOT
}

# key policy of arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab, if its policy does not leave it to IAM
output "key" {
  value = <<-EOT
    {
      "Version": "2012-10-17",
      "Statement": [
        {
          "Sid": "UseThroughS3",
          "Effect": "Allow",
          "Principal": {
            "AWS": "arn:aws:iam::123456789012:role/S3Sink"
          },
          "Action": [
            "kms:GenerateDataKey"
          ],
          "Resource": [
            "*"
          ],
          "Condition": {
            "StringLike": {
              "kms:ViaService": [
                "s3.*.amazonaws.com",
                "s3.*.amazonaws.com.cn"
              ]
            }
          }
        }
      ]
    }
  EOT
}
