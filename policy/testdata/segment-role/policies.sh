
# These policies are for more than one account. Run the script in each: it does the parts of that account.
account=$(aws sts get-caller-identity --query Account --output text)

policies() {

# permissions of arn:aws:iam::210987654321:role/apps/checkout, to assume the role arn:aws:iam::123456789012:role/S3Sink
if [ "$account" = 210987654321 ]; then
inline_policy role checkout s3sink-assume-role '{
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
trust_policy 'arn:aws:iam::123456789012:role/S3Sink' S3Sink / '{
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
fi

# permissions of arn:aws:iam::123456789012:role/S3Sink, to write below the prefix
if [ "$account" = 123456789012 ]; then
inline_policy role S3Sink s3sink-write '{
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
if [ "$account" = 123456789012 ]; then
key_policy 'arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab' eu-west-1 '{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Sid": "UseThroughS3",
      "Effect": "Allow",
      "Principal": {
        "AWS": "arn:aws:iam::123456789012:role/S3Sink"
      },
      "Action": [
        "kms:GenerateDataKey"
      ],
      "Resource": [
        "*"
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
}' '{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Effect": "Allow",
      "Principal": {
        "AWS": "arn:aws:iam::123456789012:root"
      },
      "Action": [
        "kms:*"
      ],
      "Resource": [
        "*"
      ]
    }
  ]
}'
fi

}

lacking=
pass=read
policies
if [ -n "$lacking" ]; then
	stop 3 'Nothing was changed. Read the policies above. To write them, run this again with APPLY_MERGED=1 in the environment.'
fi
pass=write
policies
