#!/bin/sh
set -eu
# This is for more than one account: run it in each. It does the parts of that account.
account=$(aws sts get-caller-identity --query Account --output text)

# permissions of arn:aws:iam::210987654321:role/apps/checkout, to assume the role arn:aws:iam::123456789012:role/S3Sink
if [ "$account" = 210987654321 ]; then
aws iam put-role-policy --role-name checkout --policy-name s3sink-assume-role --policy-document '{
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
}'
fi

# trust policy of arn:aws:iam::123456789012:role/S3Sink, so that it can be assumed, and only so
if [ "$account" = 123456789012 ]; then
# If there is such a role, this replaces its trust policy. Keep the statements for others in it.
trust='{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Effect": "Allow",
      "Principal": {
        "AWS": "arn:aws:iam::210987654321:role/apps/checkout"
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
aws iam create-role --role-name S3Sink --path / --assume-role-policy-document "$trust" ||
  aws iam update-assume-role-policy --role-name S3Sink --policy-document "$trust"
fi

# permissions of arn:aws:iam::123456789012:role/S3Sink, to write below the prefix
if [ "$account" = 123456789012 ]; then
aws iam put-role-policy --role-name S3Sink --policy-name s3sink-write --policy-document '{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Sid": "WriteObjects",
      "Effect": "Allow",
      "Action": [
        "s3:PutObject"
      ],
      "Resource": [
        "arn:aws:s3:::acme-events/path/prefix/segment-logs/*"
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
}'
fi

# key policy of arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab, if its policy does not leave it to IAM
# Add to the statements of the key's policy (in the console: KMS, the key, Key users):
# {
#   "Version": "2012-10-17",
#   "Statement": [
#     {
#       "Sid": "UseThroughS3",
#       "Effect": "Allow",
#       "Principal": {
#         "AWS": "arn:aws:iam::123456789012:role/S3Sink"
#       },
#       "Action": [
#         "kms:GenerateDataKey"
#       ],
#       "Resource": [
#         "*"
#       ],
#       "Condition": {
#         "StringLike": {
#           "kms:ViaService": [
#             "s3.*.amazonaws.com",
#             "s3.*.amazonaws.com.cn"
#           ]
#         }
#       }
#     }
#   ]
# }
