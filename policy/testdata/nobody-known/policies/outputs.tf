# The policies of s3sink. This module needs no provider.

# permissions of the caller, to assume the role arn:aws:iam::123456789012:role/S3Sink
output "permissions_caller" {
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
            "arn:aws:s3:::acme-events/a$${*}b/segment-logs/*"
          ]
        },
        {
          "Sid": "UseKeyThroughS3",
          "Effect": "Allow",
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

# key policy of the key, if its policy does not leave it to IAM
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
