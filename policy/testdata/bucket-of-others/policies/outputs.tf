# The policies of s3sink. This module needs no provider.

# permissions of arn:aws:iam::210987654321:user/exporter, to write below the prefix
output "permissions_exporter" {
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
            "arn:aws:s3:::acme-events/segment-logs/*"
          ]
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
            "AWS": "arn:aws:iam::210987654321:user/exporter"
          },
          "Action": [
            "s3:PutObject"
          ],
          "Resource": [
            "arn:aws:s3:::acme-events/segment-logs/*"
          ]
        }
      ]
    }
  EOT
}
