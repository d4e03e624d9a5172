#!/bin/sh
set -eu
# This is for more than one account: run it in each. It does the parts of that account.
account=$(aws sts get-caller-identity --query Account --output text)

# permissions of arn:aws:iam::210987654321:user/exporter, to write below the prefix
if [ "$account" = 210987654321 ]; then
aws iam put-user-policy --user-name exporter --policy-name s3sink-write --policy-document '{
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
}'
fi

# bucket policy of arn:aws:s3:::acme-events, because the bucket is in another account than whoever writes
if [ "$account" != 210987654321 ]; then
# This replaces the bucket's policy. If it has one, add the statements to it.
aws s3api put-bucket-policy --bucket acme-events --policy '{
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
}'
fi
