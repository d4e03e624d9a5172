# The policies of s3sink. This module needs no provider.

# permissions of arn:aws-cn:iam::210987654321:user/service, to assume the role arn:aws-cn:iam::210987654321:role/Exporter
output "permissions_service" {
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
            "arn:aws-cn:iam::210987654321:role/Exporter"
          ]
        }
      ]
    }
  EOT
}

# trust policy of arn:aws-cn:iam::210987654321:role/Exporter, so that it can be assumed, and only so
output "trust_Exporter" {
  value = <<-EOT
    {
      "Version": "2012-10-17",
      "Statement": [
        {
          "Effect": "Allow",
          "Principal": {
            "AWS": "arn:aws-cn:iam::210987654321:user/service"
          },
          "Action": [
            "sts:AssumeRole"
          ]
        }
      ]
    }
  EOT
}

# permissions of arn:aws-cn:iam::210987654321:role/Exporter, to assume the role arn:aws-cn:iam::123456789012:role/vendors/S3Sink
output "permissions_Exporter" {
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
            "arn:aws-cn:iam::123456789012:role/vendors/S3Sink"
          ]
        }
      ]
    }
  EOT
}

# trust policy of arn:aws-cn:iam::123456789012:role/vendors/S3Sink, so that it can be assumed, and only so
output "trust_S3Sink" {
  value = <<-EOT
    {
      "Version": "2012-10-17",
      "Statement": [
        {
          "Effect": "Allow",
          "Principal": {
            "AWS": "arn:aws-cn:iam::210987654321:role/Exporter"
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

# permissions of arn:aws-cn:iam::123456789012:role/vendors/S3Sink, to write below the prefix
output "permissions_S3Sink" {
  value = <<-EOT
    {
      "Version": "2012-10-17",
      "Statement": [
        {
          "Sid": "WriteObjects",
          "Effect": "Allow",
          "Action": [
            "s3:PutObject",
            "s3:PutObjectAcl",
            "s3:PutObjectTagging"
          ],
          "Resource": [
            "arn:aws-cn:s3:::acme-events/it's a$${$}b/events/*"
          ]
        }
      ]
    }
  EOT
}
