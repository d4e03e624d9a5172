#!/bin/sh
set -eu
# This is for more than one account: apply each part in the account of its ARN.

# permissions of arn:aws-cn:iam::210987654321:user/service, to assume the role arn:aws-cn:iam::210987654321:role/Exporter
aws iam put-user-policy --user-name service --policy-name s3sink-assume-role --policy-document '{
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
}'

# trust policy of arn:aws-cn:iam::210987654321:role/Exporter, so that it can be assumed, and only so
trust='{
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
}'
aws iam create-role --role-name Exporter --path / --assume-role-policy-document "$trust" ||
  aws iam update-assume-role-policy --role-name Exporter --policy-document "$trust"

# permissions of arn:aws-cn:iam::210987654321:role/Exporter, to assume the role arn:aws-cn:iam::123456789012:role/vendors/S3Sink
aws iam put-role-policy --role-name Exporter --policy-name s3sink-assume-role --policy-document '{
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
}'

# trust policy of arn:aws-cn:iam::123456789012:role/vendors/S3Sink, so that it can be assumed, and only so
trust='{
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
}'
aws iam create-role --role-name S3Sink --path /vendors/ --assume-role-policy-document "$trust" ||
  aws iam update-assume-role-policy --role-name S3Sink --policy-document "$trust"

# permissions of arn:aws-cn:iam::123456789012:role/vendors/S3Sink, to write below the prefix
aws iam put-role-policy --role-name S3Sink --policy-name s3sink-write --policy-document '{
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
        "arn:aws-cn:s3:::acme-events/it'\''s a${$}b/events/*"
      ]
    }
  ]
}'
