#!/bin/sh
set -eu
# This is for more than one account: run it in each. It does the parts of that account.
account=$(aws sts get-caller-identity --query Account --output text)

# permissions of arn:aws-us-gov:iam::210987654321:role/3rd-party, to assume the role arn:aws-us-gov:iam::123456789012:role/it's/$(id)/${x}/3rd-party
if [ "$account" = 210987654321 ]; then
aws iam put-role-policy --role-name 3rd-party --policy-name s3sink-assume-role --policy-document '{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Effect": "Allow",
      "Action": [
        "sts:AssumeRole"
      ],
      "Resource": [
        "arn:aws-us-gov:iam::123456789012:role/it'\''s/${$}(id)/${$}{x}/3rd-party"
      ]
    }
  ]
}'
fi

# trust policy of arn:aws-us-gov:iam::123456789012:role/it's/$(id)/${x}/3rd-party, so that it can be assumed, and only so
if [ "$account" = 123456789012 ]; then
# If there is such a role, this replaces its trust policy. Keep the statements for others in it.
trust='{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Effect": "Allow",
      "Principal": {
        "AWS": "arn:aws-us-gov:iam::210987654321:role/3rd-party"
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
aws iam create-role --role-name 3rd-party --path '/it'\''s/$(id)/${x}/' --assume-role-policy-document "$trust" ||
  aws iam update-assume-role-policy --role-name 3rd-party --policy-document "$trust"
fi

# permissions of arn:aws-us-gov:iam::123456789012:role/it's/$(id)/${x}/3rd-party, to write below the prefix
if [ "$account" = 123456789012 ]; then
aws iam put-role-policy --role-name 3rd-party --policy-name s3sink-write --policy-document '{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Sid": "WriteObjects",
      "Effect": "Allow",
      "Action": [
        "s3:PutObject"
      ],
      "Resource": [
        "arn:aws-us-gov:s3:::acme-events/segment-logs/*"
      ]
    }
  ]
}'
fi
