#!/bin/sh
set -eu
# This is for more than one account: run it in each. It does the parts of that account.
account=$(aws sts get-caller-identity --query Account --output text)

# permissions of arn:aws:iam::210987654321:user/s3-copy, to write below the prefix
if [ "$account" = 210987654321 ]; then
aws iam put-user-policy --user-name s3-copy --policy-name s3sink-write --policy-document '{
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
}'
fi

# key policy of arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab, because the key is in another account than whoever writes
# Add to the statements of the key's policy (in the console: KMS, the key, Key users):
# {
#   "Version": "2012-10-17",
#   "Statement": [
#     {
#       "Sid": "UseThroughS3",
#       "Effect": "Allow",
#       "Principal": {
#         "AWS": "arn:aws:iam::210987654321:user/s3-copy"
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
