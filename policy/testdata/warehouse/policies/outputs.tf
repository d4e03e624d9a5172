# The policies of s3sink. This module needs no provider.

# permissions of whoever writes, to write below the prefix
output "permissions_writer" {
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
            "kms:GenerateDataKey",
            "kms:Decrypt"
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
        },
        {
          "Sid": "ReadObjects",
          "Effect": "Allow",
          "Action": [
            "s3:GetObject"
          ],
          "Resource": [
            "arn:aws:s3:::acme-events/rudder-logs/*"
          ]
        },
        {
          "Sid": "ListObjects",
          "Effect": "Allow",
          "Action": [
            "s3:ListBucket"
          ],
          "Resource": [
            "arn:aws:s3:::acme-events"
          ],
          "Condition": {
            "StringLike": {
              "s3:prefix": [
                "rudder-logs/*"
              ]
            }
          }
        }
      ]
    }
  EOT
}
