# The policies of s3sink. This module needs no provider.

# permissions of arn:aws:iam::123456789012:user/rudder, to write below the prefix
output "permissions_rudder" {
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
            "arn:aws:s3:::acme-events/prod/rudder-logs/*"
          ]
        }
      ]
    }
  EOT
}
