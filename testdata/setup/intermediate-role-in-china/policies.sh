#!/bin/sh
set -eu
# This is for more than one account: run it in each. It does the parts of that account.
account=$(aws sts get-caller-identity --query Account --output text)

# permissions of arn:aws-cn:iam::210987654321:user/service, to assume the role arn:aws-cn:iam::210987654321:role/Exporter
if [ "$account" = 210987654321 ]; then
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
fi

# trust policy of arn:aws-cn:iam::210987654321:role/Exporter, so that it can be assumed, and only so
if [ "$account" = 210987654321 ]; then
# If there is such a role, this replaces its trust policy. Keep the statements for others in it.
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
fi

# permissions of arn:aws-cn:iam::210987654321:role/Exporter, to assume the role arn:aws-cn:iam::123456789012:role/vendors/S3Sink
if [ "$account" = 210987654321 ]; then
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
fi

# trust policy of arn:aws-cn:iam::123456789012:role/vendors/S3Sink, so that it can be assumed, and only so
if [ "$account" = 123456789012 ]; then
# If there is such a role, this replaces its trust policy. Keep the statements for others in it.
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
fi

# permissions of arn:aws-cn:iam::123456789012:role/vendors/S3Sink, to write below the prefix
if [ "$account" = 123456789012 ]; then
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
fi
