#!/bin/sh
set -eu

# permissions of arn:aws:iam::123456789012:user/rudder, to write below the prefix
aws iam put-user-policy --user-name rudder --policy-name s3sink-write --policy-document '{
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
}'
