# The policies of s3sink. This module needs no provider.

# permissions of arn:aws:iam::210987654321:user/s3-copy, to write below the prefix
output "permissions_s3_copy" {
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
            "arn:aws:s3:::acme-events/rudder-logs/*"
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

# bucket policy of arn:aws:s3:::acme-events, because the bucket is in another account than whoever writes
output "bucket" {
  value = <<-EOT
    {
      "Version": "2012-10-17",
      "Statement": [
        {
          "Sid": "WriteObjects",
          "Effect": "Allow",
          "Principal": {
            "AWS": "arn:aws:iam::210987654321:user/s3-copy"
          },
          "Action": [
            "s3:PutObject"
          ],
          "Resource": [
            "arn:aws:s3:::acme-events/rudder-logs/*"
          ]
        }
      ]
    }
  EOT
}

# key policy of arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab, because the key is in another account than whoever writes
output "key" {
  value = <<-EOT
    {
      "Version": "2012-10-17",
      "Statement": [
        {
          "Sid": "UseThroughS3",
          "Effect": "Allow",
          "Principal": {
            "AWS": "arn:aws:iam::210987654321:user/s3-copy"
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
